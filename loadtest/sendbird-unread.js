// Sendbird's unread_item_count: all nine counts of a user.
// RATE calls per second (100), for DURATION (30s).
import { constant, duration, options as shared, rate, read, setup, summary } from './lib.js';

export const options = shared({ sendbirdUnread: constant('sendbirdUnread', rate, duration('30s')) }, 100);

export { setup };

export function sendbirdUnread(data) {
  read('sendbirdUnread', data);
}

export const handleSummary = summary('sendbird-unread');
