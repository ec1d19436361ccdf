// Writes: POST /v1/events with BATCH messages (10), each followed by a read that has to show them, now and then a request
// that is sent again, and a room that is read.
// RATE such rounds per second (100), for DURATION (30s).
import { constant, duration, options as shared, rate, setup, summary, write } from './lib.js';

export const options = shared({ write: constant('write', rate, duration('30s')) }, 200);

export { setup, write };

export const handleSummary = summary('events');
