import type { PairVerdict } from '../core/incident.js'
import type { Runtime } from './runtime.js'

export interface StaleLog {
  /** @param verdicts - of all pairs that matter, by name; undefined: silence */
  readonly note: (verdicts: Iterable<readonly [name: string, verdict: PairVerdict | undefined]>) => void
}

const MAX_NAMED = 20

/**
 * Says once of each pair that Prometheus still serves what its monitor exported and the monitor is gone, and once that there
 * is something new. Of silence after that nothing is said: it is no news.
 */
export function createStaleLog({ logger }: Pick<Runtime, 'logger'>): StaleLog {
  let stale: ReadonlySet<string> = new Set()
  const named = (names: readonly string[]): Readonly<Record<string, unknown>> => ({
    pairs: names.slice(0, MAX_NAMED),
    ...(names.length > MAX_NAMED ? { more: names.length - MAX_NAMED } : {}),
  })
  return {
    note: (verdicts) => {
      const now = new Set<string>()
      const fresh: string[] = []
      for (const [name, verdict] of verdicts) {
        const reason = verdict?.kind === 'unknown' ? verdict.reason : verdict === undefined ? 'no_data' : null
        if (reason === 'stale' || (reason === 'no_data' && stale.has(name))) now.add(name)
        else if (stale.has(name)) fresh.push(name)
      }
      const gone = [...now].filter((name) => !stale.has(name))
      if (gone.length > 0) logger.warn(named(gone), 'what a monitor exports is stale')
      if (fresh.length > 0) logger.info(named(fresh), 'what a monitor exports is fresh again')
      stale = now
    },
  }
}
