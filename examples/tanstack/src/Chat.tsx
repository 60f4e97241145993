import { useChat } from '@tanstack/ai-react';
import { useEffect, useMemo, useRef, useState } from 'react';
import { Message } from './Message';
import { byRequest, bySession, stopAnswer } from './room';

export function Chat({ room, live }: { room: string; live: boolean }) {
  const connection = useMemo(() => (live ? bySession(room) : byRequest()), [room, live]);
  const { messages, sendMessage, reload, addToolApprovalResponse, isLoading, sessionGenerating, error } = useChat({
    threadId: room,
    connection,
    live,
    persistence: live ? undefined : true, // load the history, take up the answer that is being made; a session has both
  });
  const busy = isLoading || sessionGenerating;

  const end = useRef<HTMLDivElement>(null);
  useEffect(() => {
    end.current?.scrollIntoView({ block: 'end' });
  }, [messages, busy]);

  return (
    <>
      <div className="log" role="log" aria-label="Messages" aria-busy={busy}>
        {messages.length === 0 && (
          <p className="hint">Ask for the weather in Lisbon, a refund of order 17, or a count.</p>
        )}
        {messages.map(message => (
          <Message key={message.id} message={message} onDecision={addToolApprovalResponse} />
        ))}
        {error && <p role="alert">{error.message}</p>}
        {!busy && messages.at(-1)?.role === 'assistant' && (
          <button className="quiet" onClick={() => reload()}>
            Regenerate
          </button>
        )}
        {busy && messages.at(-1)?.role === 'user' && <p className="hint">…</p>}
        <div ref={end} />
      </div>
      <Composer busy={busy} onSend={sendMessage} onStop={() => stopAnswer(room)} />
    </>
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
