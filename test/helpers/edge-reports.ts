import type { Pair } from '../../src/core/pair.js'
import type { Report, ReportedPair } from '../../src/report/report.js'

const START_SECONDS = 1_700_000_000

type Point = ReportedPair['points'][number]

export function sample(since: number, yMs: number | null, verdict: Point['verdict'] = 'ok'): Point {
  return { timestampSeconds: START_SECONDS + since, yMs, yhatMs: 10, yMinMs: 8, yMaxMs: 13, verdict }
}

export function missingSample(since: number): Point {
  return {
    timestampSeconds: START_SECONDS + since,
    yMs: null,
    yhatMs: null,
    yMinMs: null,
    yMaxMs: null,
    verdict: 'no_data',
  }
}

export function pairOf(points: readonly Point[], pair: Pair = { source: 'a', destination: 'b' }): ReportedPair {
  return { pair, quantile: 0.5, points, accumulatorThreshold: 5 }
}

/** Ten minutes in which nothing was seen, with what a test gives it. */
export function reportOf(report: Partial<Report>): Report {
  return {
    title: 'a report',
    summary: [],
    partial: false,
    startSeconds: START_SECONDS,
    endSeconds: START_SECONDS + 600,
    pairs: [],
    polls: [],
    transitions: [],
    groundTruth: { faults: [], transients: [] },
    incidentThreshold: 10,
    clearThreshold: 5,
    tables: [],
    tradeOffs: [],
    ...report,
  }
}

const MARKUP = `<script>document.title='owned'</script>`

export const HOSTILE_NAMES: readonly string[] = [
  MARKUP,
  `"><img src=x onerror=alert(1)>`,
  `' onload='alert(1)`,
  'line\r\nbreak\u2028and\u0000control\u001b[31m\u202eright-to-left\ud800',
  '| pipe ` tick * star _ under [link](https://example.org) ~~gone~~ \\ back &amp; &lt;b&gt;',
  '../../../etc/passwd',
  '服务 сервис',
  'x'.repeat(300),
]

/** Every text of it is as bad as it can be. */
export function hostileReport(): Report {
  const points = Array.from({ length: 40 }, (_, i) => sample(15 * i, 10 + (i % 3), i === 20 ? 'anomalous' : 'ok'))
  const all = HOSTILE_NAMES.join(' ')
  return reportOf({
    title: all,
    summary: HOSTILE_NAMES,
    partial: true,
    pairs: HOSTILE_NAMES.map((name, i) => pairOf(points, { source: name, destination: HOSTILE_NAMES.at(i - 1)! })),
    polls: points.map(({ timestampSeconds }, i) => ({
      timestampSeconds,
      accumulators: HOSTILE_NAMES.map(() => i % 8),
      temperature: i,
      severity: i > 20 ? 2 : null,
    })),
    transitions: [{ timestampSeconds: START_SECONDS + 315, transition: 'opened', severity: 2, text: HOSTILE_NAMES }],
    groundTruth: {
      faults: HOSTILE_NAMES.map((name, i) => ({
        name,
        fromSeconds: START_SECONDS + 60 * i,
        toSeconds: START_SECONDS + 60 * i + 100,
        pairs: [],
      })),
      transients: [{ name: all, fromSeconds: START_SECONDS - 100, toSeconds: START_SECONDS + 5_000 }],
    },
    tables: [
      {
        title: all,
        columns: HOSTILE_NAMES,
        rows: [HOSTILE_NAMES, [1 / 3, null, NaN, Infinity, '', 'short row']],
        note: all,
      },
    ],
    tradeOffs: [
      {
        title: all,
        xTitle: all,
        yTitle: all,
        points: HOSTILE_NAMES.flatMap((name, i) => [
          { series: name, label: name, x: i, y: i ** 2 },
          { series: name, label: name, x: i + 0.5, y: NaN },
        ]),
      },
    ],
  })
}

export function twentyPairs(): Report {
  const names = Array.from({ length: 20 }, (_, i) => ({
    source: `checkoutservice-${i}`,
    destination: 'paymentservice',
  }))
  return reportOf({
    pairs: names.map((pair, n) =>
      pairOf(
        Array.from({ length: 41 }, (_, i) => sample(15 * i, 10 + Math.sin(i + n), i === 2 * n ? 'anomalous' : 'ok')),
        pair,
      ),
    ),
    polls: Array.from({ length: 41 }, (_, i) => ({
      timestampSeconds: START_SECONDS + 15 * i,
      accumulators: names.map((_, n) => Math.max(0, Math.min(20, i - n))),
      temperature: 10 * i,
      severity: i > 1 ? 1 : null,
    })),
    groundTruth: {
      faults: names.map((pair, n) => ({
        name: `delay ${n}`,
        fromSeconds: START_SECONDS + 20 * n,
        toSeconds: START_SECONDS + 20 * n + 200,
        pairs: [pair],
      })),
      transients: [],
    },
  })
}

/** Three pairs over seven days, a poll each 30 s, with some anomalies, missing samples, and one that holds for hours. */
export function week(): Report {
  const polls = (7 * 86_400) / 30
  const yMs = (i: number, n: number): number => 20 + 6 * Math.sin(i / 458) + 3 * Math.sin(i * (n + 1.7)) + (i % 7)
  const isAnomaly = (i: number): boolean => i % 911 === 0 || (i > 9_000 && i < 9_600)
  const points = (n: number): Point[] =>
    Array.from({ length: polls }, (_, i) => ({
      timestampSeconds: START_SECONDS + 30 * i,
      yMs: i % 97 === 5 ? null : yMs(i, n) * (isAnomaly(i) ? 20 : 1),
      yhatMs: 22 + 6 * Math.sin(i / 458),
      yMinMs: 12 + 6 * Math.sin(i / 458),
      yMaxMs: 36 + 6 * Math.sin(i / 458),
      verdict: i % 97 === 5 ? 'no_data' : isAnomaly(i) ? 'anomalous' : 'ok',
    }))
  const levels = (i: number): number => (i > 9_000 && i < 9_610 ? Math.min(20, i - 9_000) : i % 911 === 0 ? 1 : 0)
  return reportOf({
    title: 'a week',
    endSeconds: START_SECONDS + 7 * 86_400,
    pairs: [0, 1, 2].map((n) => pairOf(points(n), { source: 'frontend', destination: `service-${n}` })),
    polls: Array.from({ length: polls }, (_, i) => ({
      timestampSeconds: START_SECONDS + 30 * i,
      accumulators: [0, 1, 2].map(() => levels(i)),
      temperature: 3 * levels(i),
      severity: i > 9_003 && i < 9_610 ? 1 : null,
    })),
  })
}
