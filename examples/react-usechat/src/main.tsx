import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { Chat } from './Chat';
import { loadHistory } from './room';
import './style.css';

const room = new URLSearchParams(location.search).get('room') ?? 'lobby';
const history = await loadHistory(room);

createRoot(document.getElementById('root')!).render(
  <StrictMode>
    <Chat room={room} history={history} />
  </StrictMode>,
);
