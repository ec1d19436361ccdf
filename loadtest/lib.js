// What all scenarios share: settings, credentials, the data they ask about, the calls with their checks, and the summary.
//
// Everything is set by the environment; the defaults fit `unread demo`. See README.md for the list.

import http from 'k6/http';
import crypto from 'k6/crypto';
import encoding from 'k6/encoding';
import exec from 'k6/execution';
import { check, fail, sleep } from 'k6';
import { Counter, Rate } from 'k6/metrics';

// ---- Settings

function text(name, otherwise) {
  return __ENV[name] || otherwise;
}

export function number(name, otherwise) {
  const value = Number(text(name, otherwise));
  if (!Number.isFinite(value) || value < 0) {
    throw new Error(`${name} must be a number of at least 0`);
  }
  return value;
}

// DURATION in seconds; forms such as 90, 90s, 5m, 1h30m.
export function duration(otherwise) {
  const given = text('DURATION', otherwise);
  const parts = /^(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?$/.exec(given);
  const [hours, minutes, seconds] = parts ? parts.slice(1).map((part) => Number(part || 0)) : [0, 0, 0];
  const total = hours * 3600 + minutes * 60 + seconds;
  if (total <= 0) {
    throw new Error(`DURATION must be such as 30s, 5m or 1h30m, not ${given}`);
  }
  return total;
}

// The pods' addresses. Calls go to them in turn.
export const pods = text('BASE_URL', 'http://127.0.0.1:8080')
  .split(',')
  .map((address) => address.trim().replace(/\/+$/, ''));

// Calls per second.
export const rate = number('RATE', 100);

const users = number('USERS', 100);
const serverKey = text('SERVER_KEY', 'demo-server-key');
const imkitKey = text('IMKIT_KEY', 'demo-client-key');
const imkitSecret = text('IMKIT_SECRET', 'demo-imkit-secret');
const sdkappid = number('SDKAPPID', 1400000001);
const admin = text('ADMIN', 'administrator');
const userSig = text('USERSIG') || signUserSig(text('TENCENT_SECRET', 'unread-test-key-0001-not-a-real-secret'));
const sendbirdToken = text('SENDBIRD_TOKEN', 'demo-api-token');
const sendbirdAppId = text('SENDBIRD_APP_ID');

// ---- Options

// An open model: calls start when they are due, whether or not those before them have been answered.
export function constant(run, perSecond, seconds, more = {}) {
  return {
    executor: 'constant-arrival-rate',
    exec: run,
    rate: Math.max(1, Math.round(perSecond * 60)),
    timeUnit: '1m',
    duration: `${Math.round(seconds * 1000)}ms`,
    ...virtualUsers(perSecond),
    ...more,
  };
}

// The same along a curve: pairs of a share of the time and the share of `peak` reached at its end.
export function curve(run, peak, seconds, points, more = {}) {
  const perMinute = (share) => Math.max(1, Math.round(peak * share * 60));
  return {
    executor: 'ramping-arrival-rate',
    exec: run,
    startRate: perMinute(points[0][1]),
    timeUnit: '1m',
    stages: points.map(([time, share]) => ({
      duration: `${Math.round(seconds * time * 1000)}ms`,
      target: perMinute(share),
    })),
    ...virtualUsers(peak),
    ...more,
  };
}

// A virtual user is busy until its call is answered. k6 drops a call for which there is none, also while it makes
// another, so there are enough for a pause of half a second or more.
function virtualUsers(perSecond) {
  const prepared = number('VUS', Math.ceil(perSecond / 2) + 50);
  return { preAllocatedVUs: prepared, maxVUs: prepared * 2 };
}

// What has to hold in every scenario, and `more`. P99: milliseconds that 99 % of the answers may take, 0 for no bound.
export function options(scenarios, p99, more = {}) {
  const bound = number('P99', p99);
  const thresholds = { checks: ['rate==1'], http_req_failed: ['rate==0'], dropped_iterations: ['count==0'] };
  for (const name of Object.keys(scenarios)) {
    // Without a threshold there would be no figures of the scenario in the summary.
    thresholds[`http_req_duration{scenario:${name}}`] = [bound > 0 ? `p(99)<${bound}` : 'max>=0'];
  }
  return {
    scenarios,
    thresholds: { ...thresholds, ...more },
    summaryTrendStats: ['avg', 'min', 'med', 'p(95)', 'p(99)', 'max', 'count'],
    setupTimeout: '2m',
  };
}

// ---- Data: made anew for each run, under names of its own, so that every count is known

// What the user with this number has unread. Only this module's `setup` writes to these users.
function counts(i) {
  return { direct: 1 + (i % 3), group: 2 + (groupOf(i) % 3), supergroup: 4, invitations: i % 2 };
}

const GROUP_SIZE = 10;

function groupOf(i) {
  return Math.floor(i / GROUP_SIZE);
}

function userName(data, i) {
  return `${data.run}-user-${i}`;
}

// What the names of a run begin with.
export function runName() {
  return `k6-${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 8)}`;
}

export function setup() {
  const run = runName();
  const data = { run };
  const sender = `${run}-sender`;
  const town = `${run}-town`;
  const club = `${run}-club`;
  const everybody = Array.from({ length: users }, (_, i) => userName(data, i));
  const invited = everybody.filter((_, i) => counts(i).invitations > 0);

  const messages = (room, count) =>
    Array.from({ length: count }, (_, n) => ({
      type: 'message.sent', room, sender, id: `${n}`, text: 'hello', ...(n === 0 && { mentions: 'all' }),
    }));
  send([
    { type: 'room.updated', room: town, kind: 'supergroup', tags: [`${run}-news`] },
    { type: 'member.joined', room: town, users: [sender, ...everybody] },
    ...messages(town, counts(0).supergroup),
    { type: 'room.updated', room: club, kind: 'group' },
    { type: 'member.joined', room: club, user: sender },
    ...(invited.length > 0 ? [{ type: 'member.invited', room: club, users: invited }] : []),
  ]);
  for (let first = 0; first < users; first += GROUP_SIZE) {
    const room = `${run}-group-${groupOf(first)}`;
    const members = everybody.slice(first, first + GROUP_SIZE);
    const direct = members.flatMap((to, n) =>
      Array.from({ length: counts(first + n).direct }, (_, id) => (
        { type: 'message.sent', to, sender, id: `${id}`, text: 'hello' })));
    send([
      { type: 'room.updated', room, kind: 'group', tags: [`${run}-work`] },
      { type: 'member.joined', room, users: [sender, ...members] },
      ...messages(room, counts(first).group),
      ...direct,
    ]);
  }
  return data;
}

export function send(events) {
  const response = http.post(`${pods[0]}/v1/events`, JSON.stringify(events), {
    headers: { ...native(), 'Content-Type': 'application/json' },
    timeout: '60s',
    tags: { name: 'setup' },
  });
  if (response.status !== 200 || response.json('applied') !== events.length) {
    fail(`the data could not be made: ${response.status} ${response.error} ${response.body}`);
  }
}

// ---- Credentials

export function native() {
  return { Authorization: `Bearer ${serverKey}` };
}

function imkit(user) {
  const now = Math.floor(Date.now() / 1000);
  const part = (value) => encoding.b64encode(JSON.stringify(value), 'rawurl');
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ id: user, iat: now, exp: now + 3600 })}`;
  const signature = crypto.hmac('sha256', imkitSecret, signed, 'base64rawurl');
  return { 'IM-CLIENT-KEY': imkitKey, 'IM-Authorization': `${signed}.${signature}` };
}

// Tencent's UserSig: JSON, signed, as a zlib stream, in Base64 with three other characters. k6 cannot compress, so the
// stream holds one stored block.
function signUserSig(secret) {
  const time = Math.floor(Date.now() / 1000);
  const expire = 7 * 86400;
  const signed = `TLS.identifier:${admin}\nTLS.sdkappid:${sdkappid}\nTLS.time:${time}\nTLS.expire:${expire}\n`;
  const ticket = JSON.stringify({
    'TLS.ver': '2.0',
    'TLS.identifier': admin,
    'TLS.sdkappid': sdkappid,
    'TLS.time': time,
    'TLS.expire': expire,
    'TLS.sig': crypto.hmac('sha256', secret, signed, 'base64'),
  });
  const bytes = new Uint8Array(encoding.b64decode(encoding.b64encode(ticket)));
  let [a, b] = [1, 0];
  for (const byte of bytes) {
    a = (a + byte) % 65521;
    b = (b + a) % 65521;
  }
  const low = (n) => [n & 0xff, n >> 8];
  const high = (n) => [n >> 8, n & 0xff];
  const stream = [0x78, 0x01, 0x01, ...low(bytes.length), ...low(bytes.length ^ 0xffff), ...bytes, ...high(b), ...high(a)];
  return encoding
    .b64encode(new Uint8Array(stream).buffer)
    .replace(/\+/g, '*')
    .replace(/\//g, '-')
    .replace(/=/g, '_');
}

// ---- Reads: how each endpoint is asked about a user, what it has to answer, and how it refuses

const endpoints = {
  imkitBadges: {
    call: (base, data, user) =>
      http.post(`${base}/badges/byRoomTags`, JSON.stringify({ tags: [`${data.run}-work`, `${data.run}-news`] }), {
        headers: { ...imkit(user), 'Content-Type': 'application/json' },
        tags: { name: 'POST /badges/byRoomTags' },
      }),
    shown: (body) => body.result,
    expected: ({ group, supergroup }, data) => ({
      totalBadge: group + supergroup,
      data: { [`${data.run}-work`]: group, [`${data.run}-news`]: supergroup },
    }),
    refusal: (response, body) =>
      response.status === 429 && body.RC === 429 && body.error.code === 'RATE_LIMIT_EXCEEDED',
  },
  imkitRooms: {
    call: (base, data, user) =>
      http.get(`${base}/rooms?limit=20&sortUnreadFirst=1`, {
        headers: { ...imkit(user), 'IM-CLIENT-ID': user },
        tags: { name: 'GET /rooms' },
      }),
    shown: (body) => ({
      rooms: body.result.totalCount,
      unread: body.result.data.map((room) => room.unread).sort(),
    }),
    expected: ({ direct, group, supergroup }) => ({ rooms: 3, unread: [direct, group, supergroup].sort() }),
    refusal: (response, body) =>
      response.status === 429 && body.RC === 429 && body.error.code === 'RATE_LIMIT_EXCEEDED',
  },
  tencentUnread: {
    call: (base, data, user) => {
      const signed = `sdkappid=${sdkappid}&identifier=${encodeURIComponent(admin)}&usersig=${encodeURIComponent(userSig)}`;
      const random = Math.floor(Math.random() * 2 ** 32);
      return http.post(
        `${base}/v4/openim/get_c2c_unread_msg_num?${signed}&random=${random}&contenttype=json`,
        JSON.stringify({ To_Account: user, Peer_Account: [`${data.run}-sender`] }),
        { tags: { name: 'POST /v4/openim/get_c2c_unread_msg_num' } },
      );
    },
    shown: (body) => ({ status: body.ActionStatus, unread: body.C2CUnreadMsgNumList.map((peer) => peer.C2CUnreadMsgNum) }),
    expected: ({ direct }) => ({ status: 'OK', unread: [direct] }),
    refusal: (response, body) =>
      response.status === 200 && body.ActionStatus === 'FAIL' && body.ErrorCode === 60007,
  },
  sendbirdUnread: {
    call: (base, data, user) =>
      http.get(`${base}/v3/users/${encodeURIComponent(user)}/unread_item_count`, {
        headers: {
          'Api-Token': sendbirdToken,
          ...(sendbirdAppId && { Host: `api-${sendbirdAppId}.sendbird.com` }),
        },
        tags: { name: 'GET /v3/users/{user}/unread_item_count' },
      }),
    shown: (body) => body,
    expected: ({ direct, group, supergroup, invitations }) => ({
      non_super_group_channel_unread_message_count: direct + group,
      super_group_channel_unread_message_count: supergroup,
      group_channel_unread_message_count: direct + group + supergroup,
      non_super_group_channel_unread_mention_count: 1,
      super_group_channel_unread_mention_count: 1,
      group_channel_unread_mention_count: 2,
      non_super_group_channel_invitation_count: invitations,
      super_group_channel_invitation_count: 0,
      group_channel_invitation_count: invitations,
    }),
    refusal: (response, body) => response.status === 429 && body.error === true && body.code === 500910,
  },
  nativeUser: {
    call: (base, data, user) =>
      http.get(`${base}/v1/users/${encodeURIComponent(user)}/unread`, {
        headers: native(),
        tags: { name: 'GET /v1/users/{user}/unread' },
      }),
    shown: ({ messages, mentions, invitations, unread_rooms }) => ({ messages, mentions, invitations, unread_rooms }),
    expected: (count) => nativeTotals(count),
  },
  nativeUsers: {
    call: (base, data, user) =>
      http.post(`${base}/v1/unread`, JSON.stringify({ users: [user, `${data.run}-nobody`] }), {
        headers: { ...native(), 'Content-Type': 'application/json' },
        tags: { name: 'POST /v1/unread' },
      }),
    shown: (body) => body.users,
    expected: (count, data, i) => ({ [userName(data, i)]: nativeTotals(count), [`${data.run}-nobody`]: null }),
  },
  nativeRoom: {
    call: (base, data, user, i) =>
      http.get(`${base}/v1/rooms/${data.run}-group-${groupOf(i)}/unread?users=${encodeURIComponent(user)}`, {
        headers: native(),
        tags: { name: 'GET /v1/rooms/{room}/unread' },
      }),
    shown: (body) => body.unread,
    expected: ({ group }, data, i) => ({ [userName(data, i)]: group }),
  },
};

function nativeTotals({ direct, group, supergroup, invitations }) {
  return {
    messages: { total: direct + group + supergroup, direct, group, supergroup },
    mentions: { total: 2, direct: 0, group: 1, supergroup: 1 },
    invitations: { total: invitations, direct: 0, group: invitations, supergroup: 0 },
    unread_rooms: { total: 3, direct: 1, group: 1, supergroup: 1 },
  };
}

export const vendorEndpoints = ['imkitBadges', 'imkitRooms', 'tencentUnread', 'sendbirdUnread'];
export const nativeEndpoints = ['nativeUser', 'nativeUsers', 'nativeRoom'];

// Equal as JSON, whatever the order of the keys.
export function same(a, b) {
  const ordered = (_, value) =>
    value && typeof value === 'object' && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([one], [other]) => (one < other ? -1 : 1)))
      : value;
  return JSON.stringify(a, ordered) === JSON.stringify(b, ordered);
}

// What `take` makes of the answer's JSON; nothing if it is not what `take` expects.
export function bodyOf(response, take) {
  try {
    return take(response.json());
  } catch (_) {
    return undefined;
  }
}

// One call for the next user and pod in turn.
function ask(endpoint, data) {
  const turn = exec.scenario.iterationInTest;
  const i = turn % users;
  const { call, shown, expected } = endpoints[endpoint];
  const response = call(pods[turn % pods.length], data, userName(data, i), i);
  return { response, exact: () => same(bodyOf(response, shown), expected(counts(i), data, i)) };
}

// Asks an endpoint about one of the users that `setup` made; the counts have to be exact.
export function read(endpoint, data) {
  const { response, exact } = ask(endpoint, data);
  must(response, `${endpoint}: exact counts`, exact);
}

let explained = false;

// A check. The first one that fails, for each virtual user, says what was answered instead.
export function must(response, name, holds) {
  const good = check(response, { [name]: holds });
  if (!good && !explained) {
    explained = true;
    console.warn(`${name}: not so: ${response.status} ${response.error} ${String(response.body).slice(0, 300)}`);
  }
  return good;
}

// The same of all endpoints in turn.
export function readAny(data) {
  const all = [...vendorEndpoints, ...nativeEndpoints];
  read(all[exec.scenario.iterationInTest % all.length], data);
}

// ---- Writes

// Each virtual user has a room of its own with a reader in it, so that it knows what the reader has unread.
let room = null;

const BATCH = number('BATCH', 10);

// Sends BATCH messages and asks, another pod where there are several, what the reader has unread. Every tenth request
// is sent twice, and counts once; after it the room is read. After a failure nothing more is asked.
export function write(data) {
  const turn = exec.scenario.iterationInTest;
  const [one, other] = [pods[turn % pods.length], pods[(turn + 1) % pods.length]];
  const events = [];
  if (room === null) {
    const name = `${data.run}-room-${exec.vu.idInTest}-${turn}`;
    room = { name, reader: `${name}-reader`, requests: 0, unread: 0 };
    events.push(
      { type: 'room.updated', room: name, kind: 'group' },
      { type: 'member.joined', room: name, users: [`${name}-writer`, room.reader] },
    );
  }
  room.requests += 1;
  for (let n = 0; n < BATCH; n += 1) {
    events.push({
      type: 'message.sent', room: room.name, sender: `${room.name}-writer`, id: `${room.requests}-${n}`, text: 'hello',
    });
  }
  room.unread += BATCH;
  const name = 'POST /v1/events';
  const again = () => {
    const response = post(one, events.slice(-BATCH), `${name} again`);
    return written(response, 'events: known when sent again', { applied: 0, duplicate: BATCH });
  };
  const readUp = () => {
    const event = { type: 'room.read', room: room.name, user: room.reader };
    room.unread = 0;
    return written(post(other, [event], `${name} read`), 'events: room read', { applied: 1 });
  };
  const good =
    written(post(one, events, name), 'events: all applied', { applied: events.length, rejected: 0 })
    && unreadIs(other, room.unread)
    && (turn % 10 !== 9 || (again() && unreadIs(other, room.unread) && readUp() && unreadIs(one, 0)));
  if (!good) {
    // What was counted is not known any more; one failure should not look like many.
    room = null;
  }
}

function post(base, events, name) {
  return http.post(`${base}/v1/events`, JSON.stringify(events), {
    headers: { ...native(), 'Content-Type': 'application/json' },
    tags: { name },
  });
}

export function written(response, name, expected) {
  const shown = (body) => Object.fromEntries(Object.keys(expected).map((key) => [key, body[key]]));
  return must(response, name, () => response.status === 200 && same(bodyOf(response, shown), expected));
}

export function readUser(base, user) {
  return endpoints.nativeUser.call(base, null, user);
}

function unreadIs(base, expected) {
  const response = readUser(base, room.reader);
  return must(response, 'events: exact count after the write', () =>
    bodyOf(response, (body) => body.messages.total) === expected);
}

// ---- Rate limit

// The limit of the app in question. TOLERANCE: per cent.
const limit = {
  perSecond: number('LIMIT', 200),
  burst: number('BURST', number('LIMIT', 200)),
  offered: number('OFFER', 2 * number('LIMIT', 200)),
  tolerance: number('TOLERANCE', 2) / 100,
};
export const belowLimit = limit.perSecond * 0.95;
export const aboveLimit = limit.offered;
// Until an unused limit has its whole burst again.
export const refill = limit.burst / limit.perSecond + 0.5;

const refused = new Rate('limit_refused');
const admitted = new Counter('limit_admitted');
const admittedInTime = new Counter('limit_admitted_in_time');

// The data, and a limit that nobody has used for long enough.
export function setupLimit() {
  const data = setup();
  sleep(refill);
  return data;
}

// A refusal is what these scenarios are for, and no failure.
export function expectRefusals() {
  http.setResponseCallback(http.expectedStatuses(200, 429));
}

// Asks a vendor endpoint, which answers with exact counts or refuses in its vendor's form. `seconds`: how long this lasts.
export function offer(endpoint, data, seconds) {
  const { response, exact } = ask(endpoint, data);
  const isRefused = bodyOf(response, (body) => endpoints[endpoint].refusal(response, body)) === true;
  refused.add(isRefused);
  if (isRefused) {
    must(response, `${endpoint}: Retry-After in whole seconds`, () => /^[1-9]\d*$/.test(response.headers['Retry-After']));
    return;
  }
  must(response, `${endpoint}: exact counts, or a refusal in the vendor's form`, exact);
  admitted.add(1);
  if (Date.now() <= exec.scenario.startTime + seconds * 1000) {
    admittedInTime.add(1);
  }
}

export function noneRefused(scenario) {
  return { [`limit_refused{scenario:${scenario}}`]: ['rate==0'] };
}

// Rate x time + burst is admitted of more than that. Calls that are late, on a slow machine, may be admitted on top of it,
// so at least this much of all, and at most this much of what was answered in time.
export function limitHolds(scenario, seconds) {
  const expected = limit.burst + limit.perSecond * seconds;
  if (limit.offered * seconds < expected * 1.1) {
    throw new Error(`${limit.offered} calls per second for ${seconds} s are too few to see a limit`);
  }
  return {
    [`limit_admitted{scenario:${scenario}}`]: [`count>=${expected * (1 - limit.tolerance)}`],
    [`limit_admitted_in_time{scenario:${scenario}}`]: [`count<=${expected * (1 + limit.tolerance)}`],
  };
}

// ---- Summary

// A `handleSummary`: everything as JSON to RESULTS/NAME.json, the essential as text to standard output.
export function summary(name) {
  const file = `${text('RESULTS', 'loadtest/results/k6')}/${name}.json`;
  return (data) => ({ stdout: shortly(name, data), [file]: JSON.stringify(data, null, 2) });
}

function shortly(name, data) {
  const value = (metric, key) => (data.metrics[metric] ? data.metrics[metric].values[key] : 0);
  const lines = [
    `${name}: ${value('http_reqs', 'count')} requests, ${value('http_req_failed', 'passes')} failed, `
      + `${value('dropped_iterations', 'count')} iterations dropped, `
      + `${value('checks', 'passes')} checks passed, ${value('checks', 'fails')} failed`,
  ];
  for (const [metric, { values }] of Object.entries(data.metrics).sort()) {
    const [, kind, scenario] = /^(\w+){scenario:(\w+)}$/.exec(metric) || [];
    if (kind === 'http_req_duration') {
      const milliseconds = (key) => `${key} ${values[key].toFixed(1)}`;
      lines.push(`  ${scenario}, ms: ${['med', 'p(95)', 'p(99)', 'max'].map(milliseconds).join(', ')}`);
    } else if (kind === 'live_shown') {
      const milliseconds = (key) => `${key} ${values[key].toFixed(0)}`;
      lines.push(`  ${values.count} messages shown, ms: ${['med', 'p(95)', 'p(99)', 'max'].map(milliseconds).join(', ')}`);
    } else if (kind === 'limit_admitted') {
      lines.push(`  ${scenario}: ${values.count} admitted`);
    }
  }
  for (const { name: what, fails } of data.root_group.checks) {
    if (fails > 0) {
      lines.push(`  FAILED ${fails} times: ${what}`);
    }
  }
  for (const [metric, { thresholds }] of Object.entries(data.metrics)) {
    for (const [threshold, { ok }] of Object.entries(thresholds || {})) {
      if (!ok) {
        const hint = threshold.startsWith('p(99)<') ? ' (a busy machine is slow: P99=0 takes the bound away)' : '';
        lines.push(`  FAILED ${metric}: ${threshold}${hint}`);
      }
    }
  }
  return `${lines.join('\n')}\n`;
}
