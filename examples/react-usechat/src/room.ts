import type { UIMessage } from 'ai';
import ReconnectingWebSocket from 'partysocket/ws';
import { useEffect, useState } from 'react';

const api = (room: string, action: string) => `/api/chat/${encodeURIComponent(room)}/${action}`;

export async function loadHistory(room: string): Promise<UIMessage[]> {
  const reply = await fetch(api(room, 'messages'));
  return reply.json();
}

/** Stops the answer for everyone. `stop()` of useChat only ends the reading of it. */
export const stopAnswer = (room: string) => fetch(api(room, 'stop'), { method: 'POST' });

type News = { type: string; streaming?: string; message?: { status?: string } };

/**
 * useChat knows what it has asked for itself. The room's socket tells of the rest: others have spoken,
 * an answer began or ended, the line is back. Null until it has.
 */
export function useNews(room: string): News | null {
  const [news, setNews] = useState<News | null>(null);
  useEffect(() => {
    const origin = location.origin.replace('http', 'ws');
    const socket = new ReconnectingWebSocket(`${origin}/ws/${encodeURIComponent(room)}?limit=1`, [], {
      minReconnectionDelay: 500,
    });
    socket.onmessage = event => {
      const frame: News = JSON.parse(event.data);
      if (['init', 'message', 'complete', 'remove'].includes(frame.type)) setNews(frame);
    };
    return () => socket.close();
  }, [room]);
  return news;
}
