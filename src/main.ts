#!/usr/bin/env node
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

import { commands } from './commands/all.js'
import { parseCommandLine } from './commands/command-line.js'
import { StartError, UsageError } from './core/errors.js'
import { systemClock } from './io/clock.js'
import { createHttp } from './io/http-client.js'
import { createLogger } from './io/log.js'
import { streamOutput } from './io/output.js'
import type { Runtime } from './io/runtime.js'

/** A stop that takes longer than this is a hang: say so and leave. */
const STOP_DEADLINE_MS = 5_000

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string
}

/** The first SIGTERM or SIGINT asks to stop; a second one kills, since `once` leaves it to its default. */
function stopSignal(): AbortSignal {
  const stop = new AbortController()
  for (const name of ['SIGTERM', 'SIGINT'] as const) {
    process.once(name, () => {
      stop.abort()
      setTimeout(() => {
        process.stderr.write(`meshfever: still not stopped ${STOP_DEADLINE_MS / 1000} s after ${name}, giving up\n`)
        process.exit(1)
      }, STOP_DEADLINE_MS).unref()
    })
  }
  return stop.signal
}

async function main(): Promise<number> {
  const signal = stopSignal()
  const parsed = parseCommandLine({ args: process.argv.slice(2), environment: process.env, commands, version })
  if (parsed.kind === 'message') {
    process.stdout.write(parsed.text)
    return 0
  }
  const { logger, flush } = createLogger({
    format: parsed.job.logFormat ?? (process.stdout.isTTY ? 'table' : 'json'),
    // A command whose stdout is data logs to stderr.
    fileDescriptor: parsed.job.logTo === 'stderr' ? 2 : 1,
  })
  const runtime: Runtime = {
    clock: systemClock,
    http: createHttp(),
    logger,
    stdout: streamOutput(process.stdout),
    signal,
    program: {
      version,
      nodeVersion: process.version,
      nodePath: process.execPath,
      scriptPath: fileURLToPath(import.meta.url),
      environment: process.env,
      isRoot: process.getuid?.() === 0,
    },
  }
  try {
    return await parsed.job.run(runtime)
  } catch (error) {
    // Nobody reads our results any more, as in `meshfever replay ... | head`: that is no failure.
    if ((error as NodeJS.ErrnoException).code === 'EPIPE') return 0
    if (!(error instanceof UsageError || error instanceof StartError))
      logger.fatal({ err: error }, 'a bug ended the program')
    throw error
  } finally {
    flush()
  }
}

try {
  process.exitCode = await main()
} catch (error) {
  if (error instanceof UsageError || error instanceof StartError) {
    process.stderr.write(`meshfever: ${error.message}\n`)
    process.exitCode = error instanceof UsageError ? 2 : 1
  } else {
    process.stderr.write(`meshfever: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`)
    process.exitCode = 1
  }
}
