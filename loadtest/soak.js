// An even load of RATE calls per second (100) for a long time, DURATION (10m; hours are what finds leaks): reads of all
// endpoints, and writes. Watch the memory of pods and Redis meanwhile.
import { constant, duration, options as shared, rate, readAny, setup, summary, write } from './lib.js';

const seconds = duration('10m');

export const options = shared(
  {
    readAny: constant('readAny', rate * 0.9, seconds),
    write: constant('write', rate * 0.1, seconds),
  },
  200,
);

export { readAny, setup, write };

export const handleSummary = summary('soak');
