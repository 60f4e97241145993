// The Durable Streams suite against the server at STREAMS_URL. SUBSCRIPTIONS=1 adds its tests of subscriptions.

import { runConformanceTests } from "@durable-streams/server-conformance-tests";

runConformanceTests({
  baseUrl: process.env.STREAMS_URL,
  subscriptions: process.env.SUBSCRIPTIONS === "1",
  longPollTimeoutMs: 500,
});
