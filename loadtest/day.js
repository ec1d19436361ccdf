// A chat product's day in DURATION (5m): reads of all endpoints and writes, in the shares that clients cause, along a curve
// from the quiet night over the morning and a dip at noon to the evening's peak of RATE calls per second (100).
import { curve, duration, options as shared, rate, read, setup, summary, write } from './lib.js';

const seconds = duration('5m');

// Time and load, as shares of the whole: night, morning, noon, afternoon, evening, night.
const day = [[0.2, 0.1], [0.15, 0.6], [0.1, 0.4], [0.2, 0.7], [0.2, 1], [0.15, 0.1]];

const shares = {
  imkitBadges: 0.3,
  imkitRooms: 0.15,
  tencentUnread: 0.15,
  sendbirdUnread: 0.15,
  nativeUser: 0.15,
  write: 0.1,
};

export const options = shared(
  Object.fromEntries(
    Object.entries(shares).map(([name, share]) => [name, curve(name, rate * share, seconds, day)]),
  ),
  200,
);

export { setup, write };

export const imkitBadges = (data) => read('imkitBadges', data);
export const imkitRooms = (data) => read('imkitRooms', data);
export const tencentUnread = (data) => read('tencentUnread', data);
export const sendbirdUnread = (data) => read('sendbirdUnread', data);
export const nativeUser = (data) => read('nativeUser', data);

export const handleSummary = summary('day');
