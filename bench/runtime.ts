import { fileURLToPath } from 'node:url'

import pino from 'pino'

import { systemClock } from '../src/io/clock.js'
import { createHttp } from '../src/io/http-client.js'
import { streamOutput } from '../src/io/output.js'
import type { Runtime } from '../src/io/runtime.js'

/** The real world for a benchmark: logs go nowhere, results to stdout. */
export function benchRuntime(): Runtime {
  const stop = new AbortController()
  process.once('SIGINT', () => stop.abort())
  return {
    clock: systemClock,
    http: createHttp(),
    logger: pino({ level: 'silent' }),
    stdout: streamOutput(process.stdout),
    signal: stop.signal,
    program: {
      version: 'bench',
      nodeVersion: process.version,
      nodePath: process.execPath,
      scriptPath: fileURLToPath(new URL('../src/main.js', import.meta.url)),
      environment: process.env,
      isRoot: process.getuid?.() === 0,
    },
  }
}
