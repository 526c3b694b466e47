import { once } from 'node:events'

import { UsageError } from '../core/errors.js'
import type { Runtime } from '../io/runtime.js'
import { type LoadReport, type LoadStep, openingLines, tickLines, type Transient } from '../testbed/load.js'
import { startTestbed, type TestbedConfig } from '../testbed/testbed.js'
import { BUILT_IN_TOPOLOGIES, loadTopology, type Range } from '../testbed/topology.js'
import { command } from './command.js'
import {
  anyText,
  integerFrom,
  intervalSeconds,
  numberAbove,
  numberFrom,
  optional,
  port,
  repeatable,
  toggle,
  withDefault,
} from './flags.js'

const MAX_USERS = 10_000

const users = integerFrom(0, MAX_USERS)
const seconds = numberFrom(0, 10 * 86_400)

/** `150-250:400`: 400 extra users between second 150 and 250. */
export function parseTransient(text: string, name: string): Transient {
  const [, from, to, extra] = /^([\d.]+)-([\d.]+):(\d+)$/.exec(text) ?? []
  if (from === undefined || to === undefined || extra === undefined) {
    throw new UsageError(`${name} must be FROM-TO:USERS in seconds, such as 150-250:400, got ${JSON.stringify(text)}`)
  }
  const transient = { fromSeconds: seconds(from, name), toSeconds: seconds(to, name), users: users(extra, name) }
  if (!(transient.toSeconds > transient.fromSeconds)) {
    throw new UsageError(`${name} must end after it starts, got ${JSON.stringify(text)}`)
  }
  return transient
}

/** `1-10`: from 1 to 10 seconds. One number is a constant. */
export function parseWait(text: string, name: string): Range {
  const [min = '', max = min, rest] = text.split('-')
  const range = { min: seconds(min, name), max: seconds(max, name) }
  if (rest !== undefined || range.max < range.min) {
    throw new UsageError(`${name} must be MIN-MAX in seconds, such as 1-10, got ${JSON.stringify(text)}`)
  }
  return range
}

/** `50,50-200,200`: users of one step after the other; 50-200 goes evenly from the one to the other. */
export function parseSteps(text: string, name: string): readonly LoadStep[] {
  return text.split(',').map((step) => {
    const [from = '', to = from, rest] = step.trim().split('-')
    if (rest !== undefined) {
      throw new UsageError(`${name} must be users or FROM-TO, such as 50,50-200,200, got ${JSON.stringify(text)}`)
    }
    return { fromUsers: users(from, name), toUsers: users(to, name) }
  })
}

const flags = {
  topology: withDefault(anyText, 'online-boutique', `${BUILT_IN_TOPOLOGIES.join(', ')}, or a .yaml file like those`),
  users: withDefault(
    parseSteps,
    '50,100,150,200,250,200,150,100,50,0',
    'users of each step, over and over; 50-200 goes evenly from one to the other; one number is a constant load',
  ),
  'step-seconds': withDefault(intervalSeconds, '120', 'how long a step of --users lasts'),
  transient: repeatable(
    parseTransient,
    'FROM-TO:USERS, extra users between two seconds of the run, such as 150-250:400',
  ),
  'spawn-rate': withDefault(numberAbove(0, 100_000), '10', 'users that may come or go in a second'),
  'wait-seconds': optional(
    parseWait,
    "MIN-MAX, how long a user waits between tasks; the topology's own (1-10) unless given",
  ),
  'duration-seconds': optional(numberAbove(0, 10 * 86_400), 'when to end; at SIGTERM unless given'),
  seed: withDefault(integerFrom(0, 2 ** 31 - 1), '1', 'the same seed draws the same tasks and service times'),
  'faults-dir': optional(
    anyText,
    'directory of VirtualService files; adding, changing or removing one is kubectl apply or delete',
  ),
  'load-file': optional(
    anyText,
    'file with a number of users to add, or with a load profile in JSON that begins when it is read; read whenever it changes',
  ),
  'file-sd': optional(anyText, "file to write the sidecars' addresses to, for Prometheus's file_sd_configs"),
  'control-port': withDefault(
    port,
    '0',
    'where /targets (for http_sd_configs), /users and /healthz are served; 0: any',
  ),
  check: toggle('check flags and files and exit without serving'),
} as const

export const testbedCommand = command({
  name: 'testbed',
  describe: 'Runs a small mesh of HTTP services with Istio-like sidecars, users and faults on this machine',
  flags,
  prepare: (values) => {
    const topology = loadTopology(values.topology, '--topology')
    const config: TestbedConfig = {
      topology,
      load: {
        shape: { steps: values.users, stepSeconds: values['step-seconds'], transients: values.transient },
        spawnRate: values['spawn-rate'],
        waitSeconds: values['wait-seconds'] ?? null,
      },
      seed: values.seed,
      controlPort: values['control-port'],
      faultsDirectory: values['faults-dir'],
      loadFile: values['load-file'],
      fileSd: values['file-sd'],
    }
    const durationSeconds = values['duration-seconds']
    return {
      logTo: 'stderr',
      run: (runtime) => (values.check ? Promise.resolve(0) : run(runtime, config, durationSeconds)),
    }
  },
})

async function run(runtime: Runtime, config: TestbedConfig, durationSeconds: number | undefined): Promise<number> {
  const { clock, logger, signal, stdout } = runtime
  for (const line of openingLines(config.load.shape, config.load.spawnRate)) await stdout.write(`${line}\n`)
  const testbed = await startTestbed(runtime, { ...config, onReport: reportPrinter(runtime) })
  try {
    logger.info(
      {
        topology: config.topology.name,
        services: config.topology.services.length,
        frontend: testbed.frontendUrl,
        control: testbed.controlUrl,
        seed: config.seed,
      },
      'testbed started',
    )
    if (durationSeconds !== undefined) await clock.sleep(durationSeconds * 1_000, signal)
    else if (!signal.aborted) await once(signal, 'abort')
    const { requests, failures } = testbed.users()
    logger.info({ requests, failures }, 'testbed stopped')
  } finally {
    await testbed.close()
  }
  return 0
}

/** Prints each second's report; leaves out those that come while the reader has not taken the last one. */
function reportPrinter({ stdout }: Runtime): (report: LoadReport) => void {
  let before: LoadReport | null = null
  let writing = false
  return (report) => {
    if (writing) return
    writing = true
    const lines = tickLines(report, before)
    before = report
    void stdout.write(`${lines.join('\n')}\n`).finally(() => {
      writing = false
    })
  }
}
