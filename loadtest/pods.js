// Several pods on one Redis; BASE_URL names them all, with commas between. What is written at one is read at the next one at
// once (RATE / 10 rounds per second), and the limit of an app (LIMIT, BURST, OFFER and TOLERANCE as in limit.js) holds for
// all pods together. For DURATION (20s).
import {
  aboveLimit, constant, duration, expectRefusals, limitHolds, offer, options as shared, pods, rate, setupLimit, summary,
  vendorEndpoints, write,
} from './lib.js';

if (pods.length < 2) {
  throw new Error('BASE_URL must name several pods, with commas between');
}

const seconds = duration('20s');
const scenarios = { write: constant('write', rate / 10, seconds) };
const thresholds = {};
for (const endpoint of vendorEndpoints) {
  scenarios[endpoint] = constant(endpoint, aboveLimit, seconds);
  Object.assign(thresholds, limitHolds(endpoint, seconds));
}

export const options = shared(scenarios, 500, thresholds);

expectRefusals();

export const setup = setupLimit;

export { write };

export const imkitBadges = (data) => offer('imkitBadges', data, seconds);
export const imkitRooms = (data) => offer('imkitRooms', data, seconds);
export const tencentUnread = (data) => offer('tencentUnread', data, seconds);
export const sendbirdUnread = (data) => offer('sendbirdUnread', data, seconds);

export const handleSummary = summary('pods');
