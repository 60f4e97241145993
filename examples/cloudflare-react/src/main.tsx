import { StrictMode, Suspense } from 'react';
import { createRoot } from 'react-dom/client';
import { Chat } from './Chat';
import './style.css';

const room = new URLSearchParams(location.search).get('room') ?? 'lobby';

createRoot(document.getElementById('root')!).render(
  <StrictMode>
    <Suspense>
      <Chat room={room} />
    </Suspense>
  </StrictMode>,
);
