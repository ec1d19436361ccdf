// The rate limit of the app, LIMIT calls per second (200) and BURST (200), on every vendor endpoint: for DURATION (20s) 95 % of
// LIMIT, of which none may be refused, then for DURATION OFFER calls per second (2 x LIMIT), of which LIMIT x time + BURST
// have to be admitted within TOLERANCE (2 %), and the others refused in the vendor's form with Retry-After.
import {
  aboveLimit, belowLimit, constant, duration, expectRefusals, limitHolds, noneRefused, offer, options as shared, refill,
  setupLimit, summary, vendorEndpoints,
} from './lib.js';

const seconds = duration('20s');
const scenarios = {};
const thresholds = {};
for (const endpoint of vendorEndpoints) {
  const [below, above] = [`${endpoint}Below`, `${endpoint}Above`];
  scenarios[below] = constant(endpoint, belowLimit, seconds);
  scenarios[above] = constant(endpoint, aboveLimit, seconds, { startTime: `${Math.round((seconds + refill) * 1000)}ms` });
  Object.assign(thresholds, noneRefused(below), limitHolds(above, seconds));
}

export const options = shared(scenarios, 500, thresholds);

expectRefusals();

export const setup = setupLimit;

export const imkitBadges = (data) => offer('imkitBadges', data, seconds);
export const imkitRooms = (data) => offer('imkitRooms', data, seconds);
export const tencentUnread = (data) => offer('tencentUnread', data, seconds);
export const sendbirdUnread = (data) => offer('sendbirdUnread', data, seconds);

export const handleSummary = summary('limit');
