// A sudden crowd: RATE calls per second (100), then within moments PEAK of them (3 x RATE), then RATE again, in DURATION (2m).
// Reads of all endpoints, and writes. Nothing may be lost, miscounted or refused, and P99 holds for all of it.
import { curve, duration, number, options as shared, rate, readAny, setup, summary, write } from './lib.js';

const seconds = duration('2m');
const peak = number('PEAK', 3 * rate);
const before = rate / peak;
const spike = [[0.4, before], [0.02, 1], [0.16, 1], [0.02, before], [0.4, before]];

export const options = shared(
  {
    readAny: curve('readAny', peak * 0.9, seconds, spike),
    write: curve('write', peak * 0.1, seconds, spike),
  },
  500,
);

export { readAny, setup, write };

export const handleSummary = summary('spike');
