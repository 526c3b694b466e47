import type { AxiosInstance } from 'axios'
import type { Logger } from 'pino'

import type { Clock } from './clock.js'

/**
 * The one seam between the program and the world. `main.ts` builds the real one, tests a fake one; nobody else makes any
 * of its parts.
 */
export interface Runtime {
  readonly clock: Clock
  /** One instance for the process; callers pass full URLs. */
  readonly http: AxiosInstance
  readonly logger: Logger
  /** Where results go that are data and not log: replay's NDJSON, the demo's story. */
  readonly stdout: Output
  /** Aborts when the process is asked to stop. */
  readonly signal: AbortSignal
}

export interface Output {
  readonly isTerminal: boolean
  /** Resolves when the text was taken; waits for a slow reader instead of buffering without bound. */
  write(text: string): Promise<void>
}
