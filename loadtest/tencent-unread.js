// Tencent's get_c2c_unread_msg_num: the unread messages of one peer, asked by an administrator.
// RATE calls per second (100), for DURATION (30s).
import { constant, duration, options as shared, rate, read, setup, summary } from './lib.js';

export const options = shared({ tencentUnread: constant('tencentUnread', rate, duration('30s')) }, 100);

export { setup };

export function tencentUnread(data) {
  read('tencentUnread', data);
}

export const handleSummary = summary('tencent-unread');
