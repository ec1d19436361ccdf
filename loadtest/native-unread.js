// The native API's three reads, each with a third of the calls: one user, several users, one room.
// RATE calls per second in all (100), for DURATION (30s).
import { constant, duration, nativeEndpoints, options as shared, rate, read, setup, summary } from './lib.js';

const seconds = duration('30s');
const third = rate / nativeEndpoints.length;

export const options = shared(
  Object.fromEntries(nativeEndpoints.map((endpoint) => [endpoint, constant(endpoint, third, seconds)])),
  100,
);

export { setup };

export const nativeUser = (data) => read('nativeUser', data);
export const nativeUsers = (data) => read('nativeUsers', data);
export const nativeRoom = (data) => read('nativeRoom', data);

export const handleSummary = summary('native-unread');
