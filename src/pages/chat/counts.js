// The counts of one user as they change. The only file of the demo that knows how they come.

/** A second between two looks, where there is no stream. */
const PAUSE = 1000;

/**
 * Calls `onCounts` with the counts of the user whose token `token()` promises: at once, and then whenever they have changed.
 * They hold `messages`, `mentions`, `invitations`, `unread_rooms`, and in `rooms` each room by its id. Answers a function that ends it.
 */
export function watch(user, token, onCounts) {
  let ended = false;
  let end = stream(token, onCounts, () => {
    if (!ended) end = poll(token, onCounts);
  });
  return () => {
    ended = true;
    end();
  };
}

/** By the live stream. `onNone` is called if this server has none. */
function stream(token, onCounts, onNone) {
  let source = null;
  let timer = 0;
  let ended = false;
  let opened = false;
  const rooms = new Map();
  let whole = false;

  const connect = async () => {
    const address = new URL("/v1/live", location.origin);
    address.searchParams.set("include", "rooms");
    address.searchParams.set("token", await token());
    if (ended) return;
    source = new EventSource(address);
    whole = false;
    let heard = Date.now();
    clearInterval(timer);
    // A beat comes every 20 s; a stream that is silent for longer than two of them is dead.
    timer = setInterval(() => {
      if (Date.now() - heard > 50_000) again(0);
    }, 5000);
    const again = (wait) => {
      source.close();
      clearInterval(timer);
      if (!ended) timer = setTimeout(connect, wait);
    };
    source.onopen = () => {
      opened = true;
    };
    source.addEventListener("beat", () => {
      heard = Date.now();
    });
    source.addEventListener("counts", (event) => {
      heard = Date.now();
      const counts = JSON.parse(event.data);
      // All rooms come first, and then those that have changed.
      if (!whole) rooms.clear();
      whole = true;
      for (const room of counts.rooms ?? []) rooms.set(room.room, room);
      for (const gone of counts.gone ?? []) rooms.delete(gone);
      if (!counts.more) onCounts({ ...counts, rooms: Object.fromEntries(rooms) });
    });
    source.addEventListener("bye", (event) => {
      again(JSON.parse(event.data).retry_ms ?? PAUSE);
    });
    source.onerror = () => {
      if (source.readyState !== EventSource.CLOSED) return;
      if (!opened && !ended) {
        ended = true;
        clearInterval(timer);
        onNone();
      } else {
        again(PAUSE + Math.random() * PAUSE);
      }
    };
  };
  connect();
  return () => {
    ended = true;
    clearInterval(timer);
    source?.close();
  };
}

/** By asking every second. */
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
      if (answer.ok) {
        const counts = await answer.json();
        if (counts.stamp !== stamp && !ended) {
          stamp = counts.stamp;
          onCounts({ ...counts, rooms: Object.fromEntries(counts.rooms.map((room) => [room.room, room])) });
        }
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
