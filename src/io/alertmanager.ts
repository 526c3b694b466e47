import { Counter, Gauge, type Registry } from 'prom-client'

import {
  type AlertDetails,
  type Alerting,
  alertsOf,
  mayFireAfter,
  neededBy,
  nextAlerting,
  NOTHING_RAISED,
  retryDelayMs,
} from '../core/alert.js'
import type { IncidentRules, IncidentState, Severity } from '../core/incident.js'
import { maintenanceAt, type MaintenanceWindow } from '../core/maintenance.js'
import { NOTIFIER_METRICS } from '../core/metric-names.js'
import { exchange, hostOf, type HttpFailure, type HttpResponse } from './exchange.js'
import type { Runtime } from './runtime.js'
import { createTroubleLog } from './trouble-log.js'

export interface NotifierConfig {
  /** Base URLs without a trailing slash; each is told everything. None: nothing is sent. */
  readonly alertmanagerUrls: readonly string[]
  readonly maintenance: readonly MaintenanceWindow[]
  /** Those of stableLabels: what tells this daemon and its replicas from others. */
  readonly labels: Readonly<Record<string, string>>
  /** The rule's. */
  readonly noDataTimeoutSeconds: number
  readonly pollIntervalMs: number
  /** Chance for the retries, in [0, 1). */
  readonly random: () => number
}

export interface FoldedPoll {
  readonly rules: IncidentRules
  /** After the poll. */
  readonly state: IncidentState
  /** The poll's, unix seconds by Prometheus's clock. */
  readonly timestampSeconds: number
  /** False while history is replayed or caught up on: folded, not sent. */
  readonly live: boolean
  /** Lines of text for the annotations, when there is something new to say; else empty, and the last ones hold. */
  readonly evidence: readonly string[]
}

export interface Notifier {
  /** To be called with each poll that was folded, in order. Never waits, never throws for what an Alertmanager does. */
  readonly update: (poll: FoldedPoll) => void
  /** Why an incident is expected at that time; null when it is not. */
  readonly expectedAt: (timestampSeconds: number) => string | null
  /** Resolves when nothing is being sent or waits to be sent again. */
  readonly idle: () => Promise<void>
}

const POST_DEADLINE_MS = 5_000
const RESEND_MS = 30_000
/** After an answer that a retry does not change: a wrong path, a missing permission. */
const SLOW_RETRY_MS = 60_000

/**
 * How long what one poll decided may wait to be sent. Later a newer poll has taken its place, or Prometheus is silent and this
 * replica blind: then it says nothing, for another may know that the incident is over.
 */
const FRESH_FOR_MS = 60_000

/**
 * Tells Alertmanagers of the incident. All it knows comes from the polls it is given, so a restart that replays them goes on
 * where the last process was: what that one raised is kept alive, or resolved when it ended meanwhile.
 *
 * Everything is sent because of a poll, so that what is repeated is never older than what was just read: a replica that
 * re-sent from a timer would raise again what another has just resolved.
 */
export function createNotifier(config: NotifierConfig, runtime: Runtime, registry: Registry): Notifier {
  const { alertmanagerUrls, maintenance, labels, noDataTimeoutSeconds, pollIntervalMs, random } = config
  const { logger } = runtime
  const resendMs = Math.max(RESEND_MS, pollIntervalMs)
  // Silence is evidence of nothing for as long as the rule says so: until then no alert may end because Prometheus is away.
  const lastsSeconds = Math.max(120, (4 * resendMs) / 1000, noDataTimeoutSeconds)
  const queues = alertmanagerUrls.map((url) =>
    createQueue(
      {
        url,
        freshForMs: Math.max(FRESH_FOR_MS, 3 * pollIntervalMs),
        // Polls come in slots: the one that is due comes half a slot early or late.
        resendAfterMs: resendMs - pollIntervalMs / 2,
        random,
        count: (result) => metrics.notifications.inc({ result }),
      },
      runtime,
    ),
  )
  const metrics = createNotifierMetrics(registry, () => queues.filter((queue) => queue.isPending()).length)
  let alerting: Alerting = NOTHING_RAISED
  let newestSeconds = -Infinity
  let lastEvidence: readonly string[] = []
  let expected: string | null = null

  return {
    update: ({ rules, state, timestampSeconds, live, evidence }) => {
      if (timestampSeconds <= newestSeconds) return // nothing new was read: a blind replica sends nothing
      newestSeconds = timestampSeconds
      const reason = maintenanceAt(maintenance, timestampSeconds)
      alerting = nextAlerting(alerting, { state, timestampSeconds, expected: reason })
      if (evidence.length > 0) lastEvidence = evidence
      if (!live) return
      if (reason !== expected) {
        if (reason === null) logger.info({ reason: expected }, 'maintenance window ended: incidents are sent again')
        else logger.info({ reason }, 'maintenance window began: incidents are expected and not sent')
        expected = reason
      }
      metrics.expected.set(reason === null ? 0 : 1)
      const details = { labels, rules, state, timestampSeconds, lastsSeconds, evidence: lastEvidence }
      for (const queue of queues) queue.offer({ alerting, details, madeMs: runtime.clock.monotonicMs() })
    },
    expectedAt: (timestampSeconds) => maintenanceAt(maintenance, timestampSeconds),
    idle: async () => {
      await Promise.all(queues.map((queue) => queue.idle()))
    },
  }
}

/** What a person would want to hear of, one text each. */
function newsOf({ firing, ended }: Alerting): readonly string[] {
  return [
    ...(firing === null ? [] : [`sev${firing.severity} firing`]),
    ...ended.map(({ severity, how, endedSeconds }) => `sev${severity} ${how} ${endedSeconds}`),
  ]
}

export function createNotifierMetrics(registry: Registry, pendingNow: () => number) {
  const { notifications, pending, expected } = NOTIFIER_METRICS
  const counter = new Counter({ ...named(notifications), labelNames: notifications.labels, registers: [registry] })
  // A counter born at 3 has an increase() of 0.
  for (const result of notifications.values) counter.inc({ result }, 0)
  new Gauge({
    ...named(pending),
    registers: [registry],
    collect() {
      this.set(pendingNow())
    },
  })
  const expectedGauge = new Gauge({ ...named(expected), registers: [registry] })
  expectedGauge.remove() // not known before the first poll
  return { notifications: counter, expected: expectedGauge }
}

function named({ name, help }: { readonly name: string; readonly help: string }): { name: string; help: string } {
  return { name, help }
}

/** What one poll decided. */
interface Batch {
  readonly alerting: Alerting
  readonly details: AlertDetails
  /** Monotonic milliseconds. */
  readonly madeMs: number
}

type Result = (typeof NOTIFIER_METRICS.notifications.values)[number]

/** The way to one Alertmanager. It holds at most one batch, the newest, so a slow one delays nobody and nothing piles up. */
interface Queue {
  readonly offer: (batch: Batch) => void
  readonly isPending: () => boolean
  readonly idle: () => Promise<void>
}

interface QueueConfig {
  readonly url: string
  readonly freshForMs: number
  readonly resendAfterMs: number
  readonly random: () => number
  readonly count: (result: Result) => void
}

function createQueue({ url, freshForMs, resendAfterMs, random, count }: QueueConfig, runtime: Runtime): Queue {
  const { clock, signal, logger } = runtime
  const trouble = createTroubleLog(runtime, { subject: 'notifications', fields: { alertmanager: url } })
  let pending: Batch | null = null
  let taken: { readonly news: ReadonlySet<string>; readonly atMs: number } | null = null
  /** Severities that may be firing there; null before the first poll. */
  let mayFire: ReadonlySet<Severity> | null = null
  let refused = false
  let working = false
  let work = Promise.resolve()
  const stopped = (): boolean => signal.aborted
  const waiting = (): Batch | null => pending
  const needed = ({ alerting }: Batch): Alerting => neededBy(alerting, mayFire ?? new Set())
  const unheard = (alerting: Alerting): readonly string[] =>
    newsOf(alerting).filter((item) => taken?.news.has(item) !== true)
  const isDue = (batch: Batch): boolean =>
    taken === null || batch.madeMs - taken.atMs >= resendAfterMs || unheard(needed(batch)).length > 0

  const post = async (said: Alerting, { details }: Batch): Promise<PostOutcome> => {
    const answer = await exchange(runtime, POST_DEADLINE_MS, {
      url: `${url}/api/v2/alerts`,
      method: 'post',
      headers: { 'Content-Type': 'application/json' },
      data: JSON.stringify(alertsOf(said, details)),
    })
    return outcomeOf(answer)
  }

  const handle = (said: Alerting, outcome: PostOutcome): void => {
    count(outcome.result)
    if (outcome.result === 'failed') {
      // It may be firing there, though we were not told.
      if (outcome.reached && said.firing !== null) mayFire = new Set([...(mayFire ?? []), said.firing.severity])
      trouble.note(outcome)
      return
    }
    if (outcome.result === 'sent') {
      trouble.note({ outcome: 'ok', detail: '' })
      const news = unheard(said)
      if (news.length > 0) logger.info({ alertmanager: url, alerts: news }, 'notified')
    } else if (!refused) {
      logger.error({ alertmanager: url, detail: outcome.detail }, 'an alert was refused: a bug of meshfever')
      refused = true
    }
    taken = { news: new Set(newsOf(said)), atMs: clock.monotonicMs() }
    mayFire = mayFireAfter(mayFire ?? new Set(), said)
  }

  /** Posts the newest batch until it is taken. */
  const drain = async (): Promise<void> => {
    let failures = 0
    while (pending !== null && !stopped()) {
      const batch: Batch = pending
      if (clock.monotonicMs() - batch.madeMs > freshForMs) {
        pending = null
        taken = null
        break
      }
      const said = needed(batch)
      const outcome = await post(said, batch)
      if (stopped()) break
      handle(said, outcome)
      if (outcome.result === 'failed') {
        failures++
        await clock.sleep(outcome.slowly ? SLOW_RETRY_MS : retryDelayMs(failures, random()), signal)
      } else {
        failures = 0
        const newest = waiting()
        if (newest !== null && !isDue(newest)) pending = null
      }
    }
    working = false
  }

  return {
    offer: (batch) => {
      const { firing, ended } = batch.alerting
      // What ended before this process began may have been raised by one before it.
      mayFire ??= new Set(ended.map(({ severity }) => severity))
      const known = new Set([firing, ...ended].map((alert) => alert?.severity))
      mayFire = new Set([...mayFire].filter((severity) => known.has(severity)))
      const said = needed(batch)
      if (said.firing === null && said.ended.length === 0) {
        // Nothing is left to say, and what waited to be said is out of date.
        pending = null
        taken = null
        return
      }
      if (pending === null && !isDue(batch)) return
      pending = batch
      if (working) return
      working = true
      work = drain()
    },
    isPending: () => waiting() !== null,
    idle: () => work,
  }
}

interface PostOutcome {
  readonly result: Result
  readonly outcome: string
  readonly detail: string
  /** Whether a person has to do something before a retry can succeed. */
  readonly slowly: boolean
  /** Whether Alertmanager may have taken it all the same. */
  readonly reached: boolean
}

const NEVER_ARRIVED = /ECONNREFUSED|EHOSTUNREACH|ENETUNREACH/

function outcomeOf(answer: HttpResponse | HttpFailure): PostOutcome {
  if (answer.kind === 'failure') {
    const { outcome, detail } = answer
    const reached = outcome !== 'dns' && outcome !== 'tls' && !NEVER_ARRIVED.test(detail)
    return { result: 'failed', outcome, detail, slowly: false, reached }
  }
  const { status, text, location } = answer
  const failed = (outcome: string, detail: string, { slowly }: { readonly slowly: boolean }): PostOutcome => ({
    result: 'failed',
    outcome,
    detail: `HTTP ${status}${detail}`,
    slowly,
    reached: !slowly,
  })
  if (status >= 200 && status < 300) return { result: 'sent', outcome: 'ok', detail: '', slowly: false, reached: true }
  if (status >= 500) return failed('http_5xx', '', { slowly: false })
  if (status === 408 || status === 429) return failed('http_4xx', '', { slowly: false })
  if (status === 400 || status === 415 || status === 422) {
    const detail = `HTTP ${status}: ${text.slice(0, 300)}`
    return { result: 'rejected', outcome: 'http_4xx', detail, slowly: true, reached: true }
  }
  if (status === 401 || status === 403) return failed('auth', '', { slowly: true })
  if (status >= 300 && status < 400) {
    const detail = `, to ${hostOf(location)}; redirects are not followed, give the final URL`
    return failed('redirect', detail, { slowly: true })
  }
  return failed('http_4xx', status === 404 ? '; is the path of --alertmanager-url right?' : '', { slowly: true })
}
