// The counts of one user as they change. The only file of the demo that knows how they come.

/** Between two looks, where there is no stream. */
const PAUSE = 1000;

/**
 * Calls `onCounts` with the counts of the user whose token `token()` promises: at once, and then whenever they have changed. They
 * hold the totals as `GET /v1/me/unread` answers them, and in `rooms` each room by its id. Answers a function that ends it.
 */
export function watch(user, token, onCounts) {
  let ended = false;
  let end = () => {};
  const byRoom = ({ rooms, ...counts }) => onCounts({ ...counts, user, rooms: Object.fromEntries(rooms) });
  import("/v1/live.js").then(
    (live) => {
      if (!ended) end = live.watch({ token, rooms: true, onCounts: byRoom });
    },
    () => {
      if (!ended) end = poll(token, byRoom);
    },
  );
  return () => {
    ended = true;
    end();
  };
}

/** By asking every second, at a server without streams. */
function poll(token, onCounts) {
  let ended = false;
  let stamp = null;
  const look = async () => {
    if (ended) return;
    try {
      const answer = await fetch("/v1/me/unread?include=rooms", {
        headers: { Authorization: `Bearer ${await token()}` },
        cache: "no-store",
      });
      const counts = answer.ok ? await answer.json() : null;
      if (counts && counts.stamp !== stamp && !ended) {
        stamp = counts.stamp;
        onCounts({ ...counts, rooms: counts.rooms.map((row) => [row.room, row]) });
      }
    } catch {
      // The next look may find it again.
    }
    setTimeout(look, PAUSE);
  };
  look();
  return () => {
    ended = true;
  };
}
