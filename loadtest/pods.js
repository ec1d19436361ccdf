// Several pods on one Redis; BASE_URL names them all, with commas between. What is written at one is read at the next one at
// once (RATE / 10 rounds per second), and the limit of an app (LIMIT, BURST, OFFER and TOLERANCE as in limit.js) holds for
// all pods together. For DURATION (20s).
import {
  aboveLimit, constant, duration, expectRefusals, limitHolds, offer, options as shared, pods, rate, setupLimit, summary, write,
} from './lib.js';

if (pods.length < 2) {
  throw new Error('BASE_URL must name several pods, with commas between');
}

const seconds = duration('20s');

export const options = shared(
  {
    write: constant('write', rate / 10, seconds),
    tencentUnread: constant('tencentUnread', aboveLimit, seconds),
  },
  500,
  limitHolds('tencentUnread', seconds),
);

expectRefusals();

export const setup = setupLimit;

export { write };

export const tencentUnread = (data) => offer('tencentUnread', data, seconds);

export const handleSummary = summary('pods');
