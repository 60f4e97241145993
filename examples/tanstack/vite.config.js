import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

const server = 'http://127.0.0.1:8000';

export default defineConfig({
  base: '/app/',
  plugins: [react()],
  // For `npm run dev`, beside a running server.
  server: { proxy: { '/api': server } },
});
