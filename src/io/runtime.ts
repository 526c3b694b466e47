import type { AxiosInstance } from 'axios'
import type { Logger } from 'pino'

import type { Clock } from './clock.js'

/**
 * The one seam between the program and the world. `main.ts` builds the real one, tests a fake one; nobody else makes any
 * of its parts.
 */
export interface Runtime {
  readonly clock: Clock
  /** One instance for the process, without credentials (see `withAccess`); callers pass full URLs. */
  readonly http: AxiosInstance
  readonly logger: Logger
  /** Where results go that are data and not log: replay's NDJSON, the demo's story. */
  readonly stdout: Output
  /** Aborts when the process is asked to stop. */
  readonly signal: AbortSignal
  readonly program: Program
}

/** The running program itself: what it says of its build, and what it needs to start another of its kind. */
export interface Program {
  readonly version: string
  readonly nodeVersion: string
  /** Node and our own main.js, so that `[nodePath, scriptPath, ...args]` is another meshfever. */
  readonly nodePath: string
  readonly scriptPath: string
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly isRoot: boolean
}

export interface Output {
  readonly isTerminal: boolean
  /** Resolves when the text was taken; waits for a slow reader instead of buffering without bound. */
  write(text: string): Promise<void>
}
