// IMKIT's POST /badges/byRoomTags: does it answer fast enough, and exactly, for somebody with two tags?
// RATE calls per second (100), for DURATION (30s).
import { constant, duration, options as shared, rate, read, setup, summary } from './lib.js';

export const options = shared({ imkitBadges: constant('imkitBadges', rate, duration('30s')) }, 100);

export { setup };

export function imkitBadges(data) {
  read('imkitBadges', data);
}

export const handleSummary = summary('imkit-badges');
