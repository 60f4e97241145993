import type { UIMessage } from '@tanstack/ai-react';

type OnDecision = (decision: { id: string; approved: boolean }) => void;
type ToolCall = Extract<UIMessage['parts'][number], { type: 'tool-call' }>;

export function Message({ message, onDecision }: { message: UIMessage; onDecision: OnDecision }) {
  return (
    <article className={message.role} aria-label={message.role === 'user' ? 'Question' : 'Answer'}>
      {message.parts.map((part, index) => {
        if (part.type === 'text') return <p key={index}>{withCode(part.content.trim())}</p>;
        if (part.type === 'thinking') {
          return (
            <details key={index}>
              <summary>Thoughts</summary>
              {withCode(part.content)}
            </details>
          );
        }
        if (part.type === 'tool-call') return <ToolCard key={part.id} part={part} onDecision={onDecision} />;
      })}
    </article>
  );
}

function stateOf({ state, approval, output }: ToolCall) {
  if (approval?.approved === false) return 'refused';
  if (state === 'error') return 'failed';
  if (output !== undefined) return 'done';
  return state === 'approval-requested' ? 'needs your approval' : 'at work …';
}

function ToolCard({ part, onDecision }: { part: ToolCall; onDecision: OnDecision }) {
  const state = stateOf(part);
  const decide = (approved: boolean) => onDecision({ id: part.approval!.id, approved });
  return (
    <section className="tool" data-state={state} aria-label={`Tool ${part.name}`}>
      <h2>
        {part.name} <small>{state}</small>
      </h2>
      <dl>
        {entries(part.input).map(([key, value]) => (
          <Entry key={key} name={key} value={value} />
        ))}
        {state === 'done' && <Entry name="result" value={part.output} />}
        {state === 'failed' && <Entry name="error" value={part.output?.error} />}
      </dl>
      {state === 'needs your approval' && (
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
