// The counts of one user as they change. The only file of the demo that knows how they come.
import { watch as watchStream } from "/v1/live.js";

/**
 * Calls `onCounts` with the counts of the user whose token `token()` promises: at once, and then whenever they have changed. They
 * hold the totals as `GET /v1/me/unread` answers them, and in `rooms` each room by its id. Answers a function that ends it.
 */
export function watch(user, token, onCounts) {
  const byRoom = ({ rooms, ...counts }) => onCounts({ ...counts, user, rooms: Object.fromEntries(rooms) });
  return watchStream({ token, rooms: true, onCounts: byRoom });
}
