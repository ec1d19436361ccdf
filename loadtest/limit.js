// The rate limit of the app, LIMIT calls per second (200) and BURST (LIMIT), on every vendor endpoint. First 95 % of LIMIT on
// all of them, of which none may be refused; then, one endpoint after the other, OFFER calls per second (2 x LIMIT), of
// which LIMIT x time + BURST have to be admitted within TOLERANCE (2 %), and the others refused in the vendor's form with
// Retry-After. Each takes DURATION (20s).
import {
  aboveLimit, belowLimit, constant, duration, expectRefusals, limitHolds, noneRefused, offer, options as shared, refill,
  setupLimit, summary, vendorEndpoints,
} from './lib.js';

const seconds = duration('20s');
const scenarios = {};
const thresholds = {};
vendorEndpoints.forEach((endpoint, n) => {
  const [below, above] = [`${endpoint}Below`, `${endpoint}Above`];
  const start = refill + (n + 1) * seconds;
  scenarios[below] = constant(endpoint, belowLimit, seconds);
  scenarios[above] = constant(endpoint, aboveLimit, seconds, { startTime: `${Math.round(start * 1000)}ms` });
  Object.assign(thresholds, noneRefused(below), limitHolds(above, seconds));
});

export const options = shared(scenarios, 500, thresholds);

expectRefusals();

export const setup = setupLimit;

export const imkitBadges = (data) => offer('imkitBadges', data, seconds);
export const imkitRooms = (data) => offer('imkitRooms', data, seconds);
export const tencentUnread = (data) => offer('tencentUnread', data, seconds);
export const sendbirdUnread = (data) => offer('sendbirdUnread', data, seconds);

export const handleSummary = summary('limit');
