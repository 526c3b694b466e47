import type { EdgeCourse, QuantileCourse } from '../core/edge-course.js'
import type { Evaluation } from '../core/score.js'
import type { MonitorFacts, MonitorView } from './page-state.js'
import { type Point, withPoint } from './ring.js'

export interface MonitorPage {
  /** @param nowSeconds - the daemon's clock */
  note(evaluation: Evaluation, nowSeconds: number): void
  readonly view: () => MonitorView
}

interface Polled extends Point {
  readonly evaluation: Evaluation
}

/** Keeps what the page shows of a monitor: the last poll, the last sample, and half an hour of both. */
export function createMonitorPage(facts: MonitorFacts, quantiles: readonly number[]): MonitorPage {
  let points: readonly Polled[] = []
  let evaluation: Evaluation | null = null
  let sampled: MonitorView['sampled'] = null
  /** Prometheus's clock less ours: polls without an answer are placed by it. */
  let aheadSeconds = 0
  return {
    note: (latest, nowSeconds) => {
      evaluation = latest
      if (latest.timestampSeconds !== null) {
        aheadSeconds = latest.timestampSeconds - nowSeconds
        sampled = { evaluation: latest, receivedSeconds: nowSeconds }
      }
      points = withPoint(points, {
        timeSeconds: latest.timestampSeconds ?? nowSeconds + aheadSeconds,
        evaluation: latest,
      })
    },
    view: () => ({ kind: 'monitor', ...facts, evaluation, sampled, history: historyOf(points, quantiles) }),
  }
}

function historyOf(points: readonly Polled[], quantiles: readonly number[]): EdgeCourse {
  return {
    timesSeconds: points.map(({ timeSeconds }) => Number(timeSeconds.toFixed(3))),
    verdicts: points.map(({ evaluation }) => evaluation.verdict),
    quantiles: quantiles.map((quantile): QuantileCourse => {
      const scored = points.map(({ evaluation }) =>
        // A band without a sample would look like knowledge of that time.
        evaluation.quantiles.find((one) => one.quantile === quantile && one.yMs !== null),
      )
      return {
        quantile,
        yMs: scored.map((one) => short(one?.yMs)),
        yhatMs: scored.map((one) => short(one?.yhatMs)),
        yMinMs: scored.map((one) => short(one?.yMinMs)),
        yMaxMs: scored.map((one) => short(one?.yMaxMs)),
        anomalous: scored.map((one) => one?.anomalous ?? null),
      }
    }),
  }
}

/** Digits that a chart can show. */
function short(value: number | null | undefined): number | null {
  return value === null || value === undefined ? null : Number(value.toPrecision(5))
}
