import { durableStreamConnection } from '@durable-streams/tanstack-ai-transport';
import { fetchServerSentEvents } from '@tanstack/ai-react';

const api = (room: string, action: string) => `/api/chat/${encodeURIComponent(room)}/${action}`;

/** Asks, and reads the answer to it: one request for each. A cut line is taken up again where it was cut. */
export const byRequest = () => fetchServerSentEvents('/api/chat', { reconnect: { maxAttempts: 100 } });

/** Reads all that is said in the room, by anyone. The reading begins anew, where it was, when it breaks. */
export function bySession(room: string): ReturnType<typeof durableStreamConnection> {
  const session = durableStreamConnection({ sendUrl: new URL(api(room, 'session'), location.href).href });
  return {
    ...session,
    async *subscribe(signal) {
      while (!signal?.aborted) {
        try {
          yield* session.subscribe(signal);
        } catch (error) {
          console.warn('The session broke; reading it again.', error);
        }
        await new Promise(resume => setTimeout(resume, 500));
      }
    },
  };
}

/** Stops the answer for everyone. `stop()` of useChat only ends the reading of it. */
export const stopAnswer = (room: string) => fetch(api(room, 'stop'), { method: 'POST' });
