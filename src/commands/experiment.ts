import { join } from 'node:path'

import { UsageError } from '../core/errors.js'
import { compressed } from '../experiment/compress.js'
import { type Experiment, readExperimentFile } from '../experiment/experiment-file.js'
import { kubernetesTarget } from '../experiment/kubernetes-target.js'
import { outcomeTable } from '../experiment/outcome.js'
import { runExperiment } from '../experiment/run.js'
import { testbedTarget } from '../experiment/testbed-target.js'
import type { Runtime } from '../io/runtime.js'
import { command } from './command.js'
import { anyText, integerFrom, numberFrom, optional, readFlags, toggle, withDefault } from './flags.js'
import { MODELS } from './models.js'
import { pairFlags, scoringFlags, scoringRules } from './monitor.js'

/** Cleaning a cluster takes its time. */
const STOP_DEADLINE_MS = 90_000

const flags = {
  output: optional(anyText, 'new or empty folder for what is measured; results/NAME-TIME unless given'),
  compress: withDefault(
    numberFrom(1),
    '1',
    'divide every time and every number of users by this, so that requests per second stay; for the testbed',
  ),
  seed: optional(integerFrom(0, 2 ** 31 - 1), "in place of the experiment's own"),
  'confirm-context': optional(anyText, 'the kubectl context to run on, for an experiment on a cluster'),
  check: toggle('check the experiment and exit'),
} as const

export const experimentCommand = command({
  name: 'experiment',
  describe: 'run FILE: runs an experiment that a YAML file describes, and keeps what it measured in a folder',
  flags,
  positionals: ['action', 'file'],
  prepare: (values, [action = '', file = '']) => {
    if (action !== 'run') throw new UsageError(`the action must be run, got ${JSON.stringify(action)}`)
    const { experiment: given, text } = readExperimentFile(
      file,
      MODELS.map(({ name }) => name),
    )
    const { compress, seed } = values
    if (compress !== 1 && given.target.kind !== 'testbed') {
      throw new UsageError(`--compress is for the testbed: a cluster takes the time it takes, got ${compress}`)
    }
    const shorter = compressed(given, compress)
    const experiment = seed === undefined ? shorter : { ...shorter, seed }
    return {
      logTo: 'stderr',
      stopDeadlineMs: STOP_DEADLINE_MS,
      run: async (runtime) => {
        if (values.check) {
          await runtime.stdout.write(`${file} is good: ${described(experiment)}\n`)
          return 0
        }
        return run(runtime, {
          experiment,
          text,
          compressedBy: compress,
          confirmedContext: values['confirm-context'] ?? null,
          folder: values.output ?? join('results', `${experiment.name}-${fileTime(runtime.clock.nowMs())}`),
        })
      },
    }
  },
})

async function run(
  runtime: Runtime,
  options: {
    readonly experiment: Experiment
    readonly text: string
    readonly compressedBy: number
    readonly confirmedContext: string | null
    readonly folder: string
  },
): Promise<number> {
  const { experiment, confirmedContext, folder } = options
  const { target } = experiment
  const labels = readFlags(
    { source: pairFlags['source-label'], destination: pairFlags['destination-label'] },
    new Map(),
  )
  const outcome = await runExperiment(runtime, {
    ...options,
    scoring: scoringRules(readFlags(scoringFlags, new Map())),
    sourceLabel: labels.source,
    destinationLabel: labels.destination,
    target: (work, onLine) =>
      target.kind === 'testbed'
        ? testbedTarget(runtime, { folder: work, onLine: (line) => onLine('testbed', line) })
        : kubernetesTarget(runtime, { settings: target.settings, confirmedContext }),
  })
  // Loaded when it is wanted: the daemons need no report in their memory.
  const { tableText } = await import('../report/assemble.js')
  await runtime.stdout.write(`\n${tableText(outcomeTable(outcome))}The report: ${join(folder, 'report.html')}\n`)
  return outcome.asExpected ? 0 : 1
}

function described({ name, trainingSeconds, observedSeconds, faults, load }: Experiment): string {
  const seconds = (value: number): string => `${Number(value.toFixed(1))} s`
  return `${name}, ${seconds(trainingSeconds)} of training and ${seconds(observedSeconds)} of observation with ${faults.length} faults and ${load.transients.length} transients`
}

/** A time that can be part of a file's name. */
function fileTime(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+/, '').replaceAll(':', '-')
}
