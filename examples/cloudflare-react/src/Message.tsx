import { getToolName, isToolUIPart, type DynamicToolUIPart, type ToolUIPart, type UIMessage } from 'ai';

type OnDecision = (decision: { id: string; approved: boolean }) => void;

export function Message({ message, onDecision }: { message: UIMessage; onDecision: OnDecision }) {
  return (
    <article className={message.role} aria-label={message.role === 'user' ? 'Question' : 'Answer'}>
      {message.parts.map((part, index) => {
        if (part.type === 'text') return <p key={index}>{withCode(part.text.trim())}</p>;
        if (part.type === 'reasoning') {
          return (
            <details key={index}>
              <summary>Thoughts</summary>
              {withCode(part.text)}
            </details>
          );
        }
        if (isToolUIPart(part)) return <ToolCard key={index} part={part} onDecision={onDecision} />;
      })}
    </article>
  );
}

const STATES: Record<string, string> = {
  'input-streaming': 'writing …',
  'input-available': 'at work …',
  'approval-requested': 'needs your approval',
  'approval-responded': 'at work …',
  'output-available': 'done',
  'output-error': 'failed',
  'output-denied': 'refused',
};

function ToolCard({ part, onDecision }: { part: ToolUIPart | DynamicToolUIPart; onDecision: OnDecision }) {
  const name = getToolName(part);
  const decide = (approved: boolean) => onDecision({ id: part.approval!.id, approved });
  return (
    <section className="tool" data-state={part.state} aria-label={`Tool ${name}`}>
      <h2>
        {name} <small>{STATES[part.state]}</small>
      </h2>
      <dl>
        {entries(part.input).map(([key, value]) => (
          <Entry key={key} name={key} value={value} />
        ))}
        {part.state === 'output-available' && <Entry name="result" value={part.output} />}
        {part.state === 'output-error' && <Entry name="error" value={part.errorText} />}
      </dl>
      {part.state === 'approval-requested' && (
        <div className="decision">
          <button className="primary" onClick={() => decide(true)}>
            Approve
          </button>
          <button onClick={() => decide(false)}>Refuse</button>
        </div>
      )}
    </section>
  );
}

const Entry = ({ name, value }: { name: string; value: unknown }) => (
  <>
    <dt>{name}</dt>
    <dd>{plain(value)}</dd>
  </>
);

const entries = (value: unknown) => Object.entries((value as object | undefined) ?? {});

const plain = (value: unknown): string =>
  typeof value === 'object' ? entries(value).map(([key, inner]) => `${key} ${plain(inner)}`).join(', ') : String(value);

/** Text with `code` in backticks. Put a Markdown component here if your model writes more than that. */
const withCode = (text: string) =>
  text.split('`').map((piece, index) => (index % 2 ? <code key={index}>{piece}</code> : piece));
