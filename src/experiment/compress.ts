import { UsageError } from '../core/errors.js'
import type { LoadShape } from '../testbed/load.js'
import { type Experiment, type Expected, MIN_SCRAPE_SECONDS } from './experiment-file.js'

/** The daemons poll no more often. */
const MIN_POLL_SECONDS = 0.1

/**
 * The same experiment in less time. Every time is divided by `factor`, and so is every number of users: with waits that are
 * shorter and users that are fewer by the same factor, requests per second and the users who come in a second stay what they
 * were. Service times and delays stay, too; a queue is shorter by the factor, and gone in a time that is.
 *
 * @throws {UsageError} when the result could not be measured any more
 */
export function compressed(experiment: Experiment, factor: number): Experiment {
  if (factor === 1) return experiment
  const by = (value: number): number => value / factor
  // Prometheus knows milliseconds.
  const interval = (seconds: number): number => Math.round(by(seconds) * 1000) / 1000
  const refuseAbove = (most: number, why: string): void => {
    if (factor <= most) return
    throw new UsageError(
      `--compress must be at most ${Math.floor(most * 100) / 100} for ${experiment.name}, so that ${why}, got ${factor}`,
    )
  }
  const { scrapeIntervalSeconds: scrape, pollIntervalSeconds: poll } = experiment
  refuseAbove(scrape / MIN_SCRAPE_SECONDS, `${scrape} s between scrapes stay ${MIN_SCRAPE_SECONDS} s or more`)
  refuseAbove(poll / MIN_POLL_SECONDS, `${poll} s between polls stay ${MIN_POLL_SECONDS} s or more`)
  const { waitSeconds, faults, incident, expected } = experiment
  return {
    ...experiment,
    trainingSeconds: by(experiment.trainingSeconds),
    observedSeconds: by(experiment.observedSeconds),
    load: compressedLoad(experiment.load, by),
    waitSeconds: { min: by(waitSeconds.min), max: by(waitSeconds.max) },
    faults: faults.map((fault) => ({
      ...fault,
      fromSeconds: by(fault.fromSeconds),
      toSeconds: by(fault.toSeconds),
    })),
    scrapeIntervalSeconds: interval(scrape),
    queryWindowSeconds: interval(experiment.queryWindowSeconds),
    pollIntervalSeconds: interval(poll),
    recordStepSeconds: interval(experiment.recordStepSeconds),
    incident: { ...incident, noDataTimeoutSeconds: by(incident.noDataTimeoutSeconds) },
    expected: compressedLimits(expected, by),
  }
}

type Divide = (value: number) => number

function compressedLoad({ steps, stepSeconds, transients }: LoadShape, by: Divide): LoadShape {
  return {
    steps: steps.map(({ fromUsers, toUsers }) => ({ fromUsers: by(fromUsers), toUsers: by(toUsers) })),
    stepSeconds: by(stepSeconds),
    transients: transients.map(({ fromSeconds, toSeconds, users }) => ({
      fromSeconds: by(fromSeconds),
      toSeconds: by(toSeconds),
      users: by(users),
    })),
  }
}

function compressedLimits({ severity, anomalies, ...limits }: Expected, by: Divide): Expected {
  return {
    severity,
    ...(anomalies === undefined ? {} : { anomalies }),
    ...Object.fromEntries(Object.entries(limits).map(([key, seconds]) => [key, by(seconds)])),
  }
}
