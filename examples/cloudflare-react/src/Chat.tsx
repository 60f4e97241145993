import { useAgentChat } from '@cloudflare/ai-chat/react';
import { useAgent } from 'agents/react';
import { useEffect, useRef, useState } from 'react';
import { Message } from './Message';

type RoomState = { note: string; refunds: number };

export function Chat({ room }: { room: string }) {
  const agent = useAgent<RoomState>({ agent: 'assistant', name: room });
  const chat = useAgentChat({ agent });
  const { messages, sendMessage, regenerate, addToolApprovalResponse, status, isStreaming, error } = chat;
  const busy = isStreaming || status === 'submitted';

  const end = useRef<HTMLDivElement>(null);
  useEffect(() => {
    end.current?.scrollIntoView({ block: 'end' });
  }, [messages, status]);

  return (
    <main>
      <header>
        <h1>{room}</h1>
        <a href={`/chat/${encodeURIComponent(room)}`}>the same room in perdure's page</a>
      </header>
      {agent.state && <Shared state={agent.state} onNote={note => agent.setState({ ...agent.state!, note })} />}
      <div className="log" role="log" aria-label="Messages" aria-busy={busy}>
        {messages.length === 0 && (
          <p className="hint">Ask for the weather in Lisbon, a refund of order 17, or a count.</p>
        )}
        {messages.map(message => (
          <Message key={message.id} message={message} onDecision={addToolApprovalResponse} />
        ))}
        {error && <p role="alert">{error.message}</p>}
        {!busy && messages.at(-1)?.role === 'assistant' && (
          <button className="quiet" onClick={() => regenerate()}>
            Regenerate
          </button>
        )}
        {status === 'submitted' && <p className="hint">…</p>}
        <div ref={end} />
      </div>
      {/* A method of the room: `stop` of useAgentChat only ends what this very page has asked for. */}
      <Composer busy={busy} onSend={text => sendMessage({ text })} onStop={() => agent.call('stop')} />
    </main>
  );
}

/** What all browsers share beside the messages: a note that anyone writes, a count that only the server changes. */
function Shared({ state, onNote }: { state: RoomState; onNote(note: string): void }) {
  return (
    <div className="shared">
      <input
        value={state.note}
        onChange={event => onNote(event.target.value)}
        aria-label="Note for everyone"
        placeholder="A note for everyone in this room"
      />
      <output aria-label="Refunds">
        {state.refunds} {state.refunds === 1 ? 'refund' : 'refunds'}
      </output>
    </div>
  );
}

type ComposerProps = { busy: boolean; onSend(text: string): void; onStop(): void };

function Composer({ busy, onSend, onStop }: ComposerProps) {
  const [draft, setDraft] = useState('');
  return (
    <form
      onSubmit={event => {
        event.preventDefault();
        if (busy || !draft.trim()) return;
        onSend(draft);
        setDraft('');
      }}
    >
      <input
        value={draft}
        onChange={event => setDraft(event.target.value)}
        aria-label="Message"
        placeholder="Message"
        autoFocus
      />
      {busy ? (
        <button type="button" onClick={onStop}>
          Stop
        </button>
      ) : (
        <button className="primary">Send</button>
      )}
    </form>
  );
}
