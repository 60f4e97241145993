import { StrictMode, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { Chat } from './Chat';
import './style.css';

const address = new URLSearchParams(location.search);
const room = address.get('room') ?? 'lobby';

function App() {
  const [live, setLive] = useState(address.has('live'));
  return (
    <main>
      <header>
        <h1>{room}</h1>
        <label>
          <input type="checkbox" checked={live} onChange={event => setLive(event.target.checked)} /> live: see what
          others say
        </label>
      </header>
      <Chat key={String(live)} room={room} live={live} />
    </main>
  );
}

createRoot(document.getElementById('root')!).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
