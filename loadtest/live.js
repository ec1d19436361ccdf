// Streams of counts: WATCHERS (100) WebSockets, each of one user, to whom messages are sent meanwhile: RATE per second in all (100),
// for DURATION (30s). Where there are several pods, each stream is at another pod than its messages. It measures the time from a
// message's being sent until the stream shows it; within P99 milliseconds (500). What a stream says last has to be what is read.
import http from 'k6/http';
import exec from 'k6/execution';
import { clearInterval, setInterval, setTimeout } from 'k6/timers';
import { Trend } from 'k6/metrics';
import { WebSocket } from 'k6/experimental/websockets';
import {
  bodyOf, duration, must, native, number, options as shared, pods, rate, readUser, runName, same, send, summary, written,
} from './lib.js';

const seconds = duration('30s');
const watchers = number('WATCHERS', 100);
const p99 = number('P99', 500);
// Within this time everything is shown, whatever was lost.
const PROMISE = 15;

const shownAfter = new Trend('live_shown', true);

export const options = shared(
  {
    live: { executor: 'per-vu-iterations', vus: watchers, iterations: 1, maxDuration: `${Math.ceil(seconds) + 60}s` },
  },
  500,
  { 'live_shown{scenario:live}': [p99 > 0 ? `p(99)<${p99}` : 'max>=0'] },
);

// The room of a watcher, who writes in it and who watches.
function names(data, turn) {
  const room = `${data.run}-live-${turn}`;
  return { room, writer: `${room}-writer`, user: `${room}-reader` };
}

export function setup() {
  const data = { run: runName() };
  for (let first = 1; first <= watchers; first += 50) {
    const turns = Array.from({ length: Math.min(50, watchers + 1 - first) }, (_, n) => names(data, first + n));
    send(turns.flatMap(({ room, writer, user }) => [
      { type: 'room.updated', room, kind: 'group' },
      { type: 'member.joined', room, users: [writer, user] },
    ]));
  }
  return data;
}

export default function live(data) {
  const turn = exec.vu.idInTest;
  const { room, writer, user } = names(data, turn);
  const [there, here] = [pods[turn % pods.length], pods[(turn + 1) % pods.length]];
  // When each message was sent; the first `shown` of them are shown.
  const sent = [];
  let [shown, last, sending, isOver, isClosed] = [0, null, null, false, false];
  const address = `${here.replace(/^http/, 'ws')}/v1/live?users=${encodeURIComponent(user)}`;
  const socket = new WebSocket(address, null, { headers: native(), tags: { name: 'GET /v1/live' } });

  const message = () => {
    sent.push(Date.now());
    const event = { type: 'message.sent', room, sender: writer, id: `${sent.length}`, text: 'hello' };
    http
      .asyncRequest('POST', `${there}/v1/events`, JSON.stringify([event]), {
        headers: { ...native(), 'Content-Type': 'application/json' },
        tags: { name: 'POST /v1/events' },
      })
      .then((response) => written(response, 'live: message applied', { applied: 1 }));
  };
  const finish = () => {
    if (isClosed) {
      return;
    }
    isClosed = true;
    clearInterval(sending);
    socket.close();
    const read = readUser(here, user);
    const totals = ({ messages, mentions, invitations, unread_rooms, stamp }) =>
      ({ messages, mentions, invitations, unread_rooms, stamp });
    must(read, 'live: all messages are shown', () => shown === sent.length);
    must(read, 'live: what was said last is what is read', () => same(totals(last), bodyOf(read, totals)));
  };

  socket.addEventListener('open', () => {
    // Not all begin and end at the same moment.
    const every = (1000 * watchers) / rate;
    setTimeout(() => {
      if (!isOver) {
        message();
        sending = setInterval(message, every);
      }
    }, Math.random() * every);
    setTimeout(() => {
      isOver = true;
      clearInterval(sending);
      if (shown === sent.length) {
        finish();
      }
      setTimeout(finish, PROMISE * 1000);
    }, (seconds + Math.random()) * 1000);
  });
  socket.addEventListener('message', ({ data: text }) => {
    const now = Date.now();
    const said = JSON.parse(text);
    if (said.event !== 'counts') {
      return;
    }
    last = said;
    while (shown < said.messages.total) {
      shownAfter.add(now - sent[shown]);
      shown += 1;
    }
    if (isOver && shown === sent.length) {
      finish();
    }
  });
  socket.addEventListener('error', ({ error }) => console.warn(`live: ${error}`));
  // A stream that the pod ends has shown too little.
  socket.addEventListener('close', finish);
}

export const handleSummary = summary('live');
