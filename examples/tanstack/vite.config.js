import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

const target = process.env.PERDURE_URL ?? 'http://127.0.0.1:8000';

export default defineConfig({
  base: '/app/',
  plugins: [react()],
  // For `npm run dev`: what is not of the page comes from the server with the rooms.
  server: { proxy: { '^/(?!app/)': { target, ws: true } } },
});
