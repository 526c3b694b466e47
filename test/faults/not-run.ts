import type { NotRun } from './row.js'

const NO_STATE = 'there is no state file: the state is a function of what Prometheus holds'
const UNIT = 'held by a test of the module'

/** The rest of the catalogue. */
export const NOT_RUN: readonly NotRun[] = [
  { id: 'S4', fault: 'all requests in the +Inf bucket', reason: `${UNIT}: lab7_saturated` },
  {
    id: 'S19',
    fault: 'series with times of their own (Pushgateway, federation)',
    reason: 'the guard is that of S18 and S24',
  },
  { id: 'S29', fault: 'the first anomaly of a counter that begins at 3', reason: `${UNIT}: every counter begins at 0` },
  { id: 'S25', fault: 'times far in the future', reason: 'needs a second server whose clock is wrong' },
  { id: 'C9', fault: 'a metric called __proto__', reason: 'no flag names a metric' },
  { id: 'F21', fault: 'the training file is replaced while the monitor runs', reason: 'it is read once, at the start' },
  { id: 'F23', fault: 'training of another pair', reason: UNIT },
  {
    id: 'F24',
    fault: 'training in seconds, polled in milliseconds',
    reason: 'the drift of the training is told by a gauge',
  },
  { id: 'P9', fault: 'the event loop stands still', reason: 'as P8: SIGSTOP' },
  { id: 'P10', fault: 'the clock steps', reason: 'part of S23' },
  { id: 'P11', fault: 'a virtual machine is suspended', reason: 'as P8: SIGSTOP' },
  { id: 'P15', fault: 'the heap is at its limit', reason: 'part of F4 and H16' },
  { id: 'P18', fault: 'two instances with one state file', reason: NO_STATE },
  ...['D2', 'D4', 'D6', 'D7', 'D8', 'D9'].map((id) => ({
    id,
    fault: 'a state file that is damaged',
    reason: NO_STATE,
  })),
  { id: 'M5', fault: '100 idle attackers fill a limit of connections', reason: 'there is no such limit; as M4' },
  ...['M13', 'M14', 'M15', 'M16', 'M17', 'M18', 'M19', 'M21'].map((id) => ({
    id,
    fault: 'what the exposition may hold',
    reason: UNIT,
  })),
  { id: 'M23', fault: 'passwords guessed', reason: UNIT },
  { id: 'N7', fault: 'an alert without alertname', reason: 'part of N5 sent' },
  { id: 'N11', fault: 'labels that change while firing', reason: UNIT },
  { id: 'N12', fault: 'flapping around the threshold', reason: UNIT },
  { id: 'N13', fault: 'annotations of 30 MB', reason: UNIT },
  { id: 'N16', fault: 'JSON in a service name', reason: UNIT },
  { id: 'N17', fault: 'a post taken whose answer is lost', reason: 'part of N1 reset' },
  { id: 'N18', fault: "Alertmanager's clock is behind", reason: 'needs a second clock; startsAt is held by N5 sent' },
  { id: 'L2', fault: 'fields of a log line from outside', reason: UNIT },
  { id: 'L3', fault: '%s in a message from outside', reason: UNIT },
  { id: 'L4', fault: 'NaN in a log line', reason: UNIT },
  { id: 'L8', fault: 'secrets in a crash dump', reason: 'none is written' },
  { id: 'L9', fault: 'bodies in the log', reason: 'part of H19' },
  ...['E1', 'E2', 'E3', 'E4', 'E5', 'E10', 'E11', 'E12'].map((id) => ({ id, fault: 'edges of a mesh', reason: UNIT })),
  ...['E7', 'E8', 'E9'].map((id) => ({
    id,
    fault: 'shards that are missing or disagree',
    reason: 'needs a cluster; the alert rules are held by promtool',
  })),
]
