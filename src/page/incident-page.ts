import { type IncidentRules, type IncidentState, type Poll, temperatureOf, timingContract } from '../core/incident.js'
import type { IncidentNow, IncidentView, TemperatureHistory } from './page-state.js'
import { type Point, withPoint } from './ring.js'

export interface IncidentPage {
  /**
   * One poll of Prometheus's history, and the state after it.
   *
   * @param at - the daemon's clock, and the reason of the maintenance window it is in
   */
  note(state: IncidentState, poll: Poll, at: { readonly nowSeconds: number; readonly expected: string | null }): void
  readonly view: () => IncidentView
}

interface Folded extends Point {
  readonly state: IncidentState
}

/** Keeps what the page shows of the incident rule: where it stands, and the half hour that led there. */
export function createIncidentPage(rules: IncidentRules): IncidentPage {
  const facts = { rules, contract: timingContract(rules) }
  let points: readonly Folded[] = []
  let now: IncidentNow | null = null
  return {
    note: (state, poll, { nowSeconds, expected }) => {
      const { timestampSeconds, verdicts } = poll
      // Before any pair was ever heard of, 0 is nothing that was measured.
      const heard = state.heardSeconds.some((seconds) => seconds !== null)
      if (heard || points.length > 0) points = withPoint(points, { timeSeconds: timestampSeconds, state })
      now = {
        timestampSeconds,
        receivedSeconds: nowSeconds,
        temperature: temperatureOf(state.accumulators),
        open: state.open,
        expected,
        pairs: rules.pairs.map((_, i) => ({
          accumulator: state.accumulators[i] ?? 0,
          verdict: verdicts[i] ?? { kind: 'unknown', reason: 'no_data' },
          heardSeconds: state.heardSeconds[i] ?? null,
        })),
      }
    },
    view: () => ({ kind: 'incident', ...facts, now, history: historyOf(points, rules) }),
  }
}

function historyOf(points: readonly Folded[], { pairs }: IncidentRules): TemperatureHistory {
  return {
    timesSeconds: points.map(({ timeSeconds }) => timeSeconds),
    temperatures: points.map(({ state }) => temperatureOf(state.accumulators)),
    severities: points.map(({ state }) => state.open?.severity ?? 0),
    accumulators: pairs.flatMap((_, pair) => {
      const levels = points.map(({ state }) => state.accumulators[pair] ?? 0)
      return levels.some((level) => level > 0) ? [{ pair, levels }] : []
    }),
  }
}
