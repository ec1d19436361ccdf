// IMKIT's GET /rooms: the costliest read, a list of whole rooms with members, last message and unread count.
// RATE calls per second (100), for DURATION (30s).
import { constant, duration, options as shared, rate, read, setup, summary } from './lib.js';

export const options = shared({ imkitRooms: constant('imkitRooms', rate, duration('30s')) }, 100);

export { setup };

export function imkitRooms(data) {
  read('imkitRooms', data);
}

export const handleSummary = summary('imkit-rooms');
