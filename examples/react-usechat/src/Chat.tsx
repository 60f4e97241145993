import { useChat } from '@ai-sdk/react';
import { lastAssistantMessageIsCompleteWithApprovalResponses, type UIMessage } from 'ai';
import { useEffect, useRef, useState } from 'react';
import { Message } from './Message';
import { loadHistory, stopAnswer, useNews } from './room';

export function Chat({ room, history }: { room: string; history: UIMessage[] }) {
  const { messages, setMessages, sendMessage, regenerate, resumeStream, addToolApprovalResponse, status, error } =
    useChat({
      id: room,
      messages: history,
      resume: true, // a reload takes up the answer that is being made
      sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithApprovalResponses,
    });
  const busy = status === 'submitted' || status === 'streaming';

  const news = useNews(room);
  const heard = useRef(news);
  useEffect(() => {
    if (busy || news === null || heard.current === news) return;
    heard.current = news;
    let late = false;
    const catchUp = async () => {
      const messages = await loadHistory(room);
      if (late) return; // there are more news, or something was sent meanwhile
      setMessages(messages);
      if (news.streaming || news.message?.status === 'streaming') await resumeStream();
    };
    catchUp().catch(() => {}); // the server is away; there is news when it is back
    return () => {
      late = true;
    };
  }, [room, busy, news]);

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
      <Composer busy={busy} onSend={text => sendMessage({ text })} onStop={() => stopAnswer(room)} />
    </main>
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
