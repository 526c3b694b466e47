import type { Runtime } from '../io/runtime.js'
import { type Flags, type Given, readFlags, type Values } from './flags.js'

import type { LogFormat } from '../io/log.js'

/** What a command is, to `main.ts`. `prepare` turns flags into a validated job; nothing is served or sent before it returns. */
export interface Command {
  readonly name: string
  readonly describe: string
  readonly flags: Flags
  /** Names of positional arguments, all of them required. */
  readonly positionals: readonly string[]
  readonly prepare: (given: Given, positionals: readonly string[]) => Job
}

/** A command whose flags, files and queries are known to be good. */
export interface Job {
  /** Undefined: a table on a terminal, JSON elsewhere. */
  readonly logFormat?: LogFormat | undefined
  /** Where the log goes. stdout unless the command prints its results there. */
  readonly logTo?: 'stderr'
  /** How long a stop may take before it is a hang, milliseconds; a few seconds unless given. */
  readonly stopDeadlineMs?: number
  /** Runs for months with little to do: memory matters more than speed. */
  readonly frugal?: boolean
  /** @returns the exit code */
  readonly run: (runtime: Runtime) => Promise<number>
}

export function command<F extends Flags>(options: {
  readonly name: string
  readonly describe: string
  readonly flags: F
  readonly positionals?: readonly string[]
  readonly prepare: (values: Values<F>, positionals: readonly string[]) => Job
}): Command {
  return {
    name: options.name,
    describe: options.describe,
    flags: options.flags,
    positionals: options.positionals ?? [],
    prepare: (given, positionals) => options.prepare(readFlags(options.flags, given), positionals),
  }
}
