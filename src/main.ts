#!/usr/bin/env node
import { readFileSync } from 'node:fs'
import { constants } from 'node:os'
import { fileURLToPath } from 'node:url'
import { setFlagsFromString } from 'node:v8'

import { parseCommandLine } from './commands/command-line.js'
import type { Command } from './commands/command.js'
import { StartError, UsageError } from './core/errors.js'
import { systemClock } from './io/clock.js'
import { createHttp } from './io/http-client.js'
import { createLogger } from './io/log.js'
import { streamOutput } from './io/output.js'
import type { Runtime } from './io/runtime.js'
import { killChildren } from './testbed/child-process.js'

/** A stop that takes longer than this is a hang, unless the command says otherwise: say so and leave. */
const STOP_DEADLINE_MS = 5_000

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string
}

/** The first of these signals asks to stop; a second one of its kind ends the process at once. */
const STOP_SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const

interface Stop {
  readonly signal: AbortSignal
  deadlineMs: number
}

function onStopSignals(): Stop {
  const controller = new AbortController()
  const stop: Stop = { signal: controller.signal, deadlineMs: STOP_DEADLINE_MS }
  for (const name of STOP_SIGNALS) {
    process.once(name, () => {
      controller.abort()
      const { deadlineMs } = stop
      setTimeout(() => {
        process.stderr.write(`meshfever: still not stopped ${deadlineMs / 1000} s after ${name}, giving up\n`)
        process.exit(1)
      }, deadlineMs).unref()
      process.once(name, () => process.exit(128 + constants.signals[name]))
    })
  }
  // However the process ends by itself, nothing that it started stays behind.
  process.once('exit', killChildren)
  return stop
}

/** A daemon loads no more than it needs: it starts sooner, and takes less memory for as long as it runs. */
async function commandsFor(name: string | undefined): Promise<readonly Command[]> {
  if (name === 'monitor') return [(await import('./commands/monitor.js')).monitorCommand]
  if (name === 'incident') return [(await import('./commands/incident.js')).incidentCommand]
  return (await import('./commands/all.js')).commands
}

/** V8 would let the heap grow severalfold before it looks for garbage, for a speed of which a poll a second has no use. */
function beFrugal(): void {
  setFlagsFromString('--optimize-for-size')
  setFlagsFromString('--semi-space-growth-factor=1')
}

async function main(): Promise<number> {
  const stop = onStopSignals()
  const args = process.argv.slice(2)
  const commands = await commandsFor(args[0])
  const parsed = parseCommandLine({ args, environment: process.env, commands, version })
  if (parsed.kind === 'message') {
    process.stdout.write(parsed.text)
    return 0
  }
  stop.deadlineMs = parsed.job.stopDeadlineMs ?? STOP_DEADLINE_MS
  if (parsed.job.frugal === true) beFrugal()
  const { logger, end, giveUp } = createLogger({
    format: parsed.job.logFormat ?? (process.stdout.isTTY ? 'table' : 'json'),
    // A command whose stdout is data logs to stderr.
    fileDescriptor: parsed.job.logTo === 'stderr' ? 2 : 1,
  })
  process.prependOnceListener('exit', giveUp)
  // Node itself would print all that an error carries, and that of an HTTP client carries the request with its credentials.
  process.on('uncaughtException', (error) => {
    logger.fatal({ err: described(error) }, 'a bug ended the program')
    void end().finally(() => process.exit(1))
  })
  const runtime: Runtime = {
    clock: systemClock,
    http: createHttp(),
    logger,
    stdout: streamOutput(process.stdout),
    signal: stop.signal,
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
      logger.fatal({ err: described(error) }, 'a bug ended the program')
    throw error
  } finally {
    await end()
  }
}

/** Of an error, these and nothing else: that of an HTTP client carries the request with its credentials. */
function described(error: unknown): Readonly<Record<string, unknown>> {
  return error instanceof Error
    ? { type: error.name, message: error.message, stack: error.stack }
    : { message: String(error) }
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
