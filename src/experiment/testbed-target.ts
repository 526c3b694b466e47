import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'

import { StartError } from '../core/errors.js'
import { writeAtomically } from '../io/atomic-file.js'
import type { Runtime } from '../io/runtime.js'
import { type ChildOptions, eventOf, type LogEvent, logged } from '../testbed/child-process.js'
import { meshfeverStarter } from '../testbed/daemon-processes.js'
import { FAULT_APPLIED, FAULT_REFUSED, FAULT_REMOVED } from '../testbed/faults.js'
import { loadProfileJson } from '../testbed/load-profile.js'
import type { LoadShape } from '../testbed/load.js'
import { LOAD_CHANGED, LOAD_REFUSED } from '../testbed/testbed.js'
import type { Experiment, Fault } from './experiment-file.js'
import { endOf } from './guard.js'
import type { Stage, Target } from './target.js'

/** The testbed looks at its files each second, and a busy machine takes its time. */
const PATIENCE_MS = 30_000

export interface TestbedTargetOptions {
  /** For the files through which the testbed is told what to do; there already. */
  readonly folder: string
  /** Told of each line that the testbed writes. */
  readonly onLine: ChildOptions['onLine']
}

/** The testbed of this machine, as a process of its own. */
export function testbedTarget(runtime: Runtime, { folder, onLine }: TestbedTargetOptions): Target {
  return { start: (experiment) => start(runtime, experiment, { folder, onLine }) }
}

async function start(
  { program, clock, signal }: Runtime,
  experiment: Experiment,
  { folder, onLine }: TestbedTargetOptions,
): Promise<Stage> {
  const files = {
    sidecars: join(folder, 'sidecars.json'),
    faults: join(folder, 'faults'),
    load: join(folder, 'profile.json'),
  }
  mkdirSync(files.faults, { recursive: true })
  /** Whoever waits for the testbed to say something. */
  const waiting = new Set<(event: LogEvent) => void>()
  const child = meshfeverStarter(program, { ownGroup: true })(
    'testbed',
    [
      ...['testbed', '--topology', experiment.application, '--seed', String(experiment.seed), '--users', '0'],
      ...['--faults-dir', files.faults, '--load-file', files.load, '--file-sd', files.sidecars],
    ],
    (line) => {
      onLine?.(line)
      const event = eventOf(line)
      if (event !== undefined) for (const tell of [...waiting]) tell(event)
    },
  )
  const failed = endOf(child)
  failed.catch(() => undefined) // whoever waits hears of it
  const stopped = new Promise<never>((_, reject) => {
    const stop = (): void => reject(new StartError('stopped while the testbed started'))
    if (signal.aborted) stop()
    else signal.addEventListener('abort', stop, { once: true })
  })
  stopped.catch(() => undefined)
  try {
    await Promise.race([child.waitForLine((line) => logged(line, 'testbed started')), stopped])
  } catch (error) {
    await child.stop()
    throw error
  }

  /** Does something and waits until the testbed says that it took it. */
  const told = async (
    what: string,
    act: () => void,
    answer: (event: LogEvent) => 'taken' | 'refused' | null,
  ): Promise<void> => {
    const giveUp = new AbortController()
    let tell: (event: LogEvent) => void = () => undefined
    const said = new Promise<'taken' | 'refused'>((resolve) => {
      tell = (event) => {
        const found = answer(event)
        if (found !== null) resolve(found)
      }
    })
    waiting.add(tell)
    try {
      act()
      const late = clock.sleep(PATIENCE_MS, giveUp.signal).then(() => 'ignored' as const)
      const heard = await Promise.race([said, late, failed])
      if (heard === 'taken') return
      throw new StartError(`the testbed ${heard} ${what}; its log says why`)
    } finally {
      waiting.delete(tell)
      giveUp.abort()
    }
  }

  let loads = 0
  const applied = new Set<Fault>()
  const fileOf = (fault: Fault): string => join(files.faults, `${experiment.faults.indexOf(fault)}.yaml`)
  return {
    metrics: { kind: 'scrape', metricsPath: '/stats/prometheus', targetsFile: files.sidecars },
    versions: {},
    applyLoad: (load) =>
      told(
        'the load',
        () => writeAtomically(files.load, profileText(load, experiment, ++loads)),
        ({ msg, profile }) =>
          msg === LOAD_REFUSED ? 'refused' : msg === LOAD_CHANGED && profile !== undefined ? 'taken' : null,
      ),
    applyFault: async (fault) => {
      await told(
        `the fault ${fault.name}`,
        () => writeAtomically(fileOf(fault), fault.manifest),
        ({ msg, file }) =>
          file !== fileOf(fault) ? null : msg === FAULT_APPLIED ? 'taken' : msg === FAULT_REFUSED ? 'refused' : null,
      )
      applied.add(fault)
    },
    removeFault: async (fault) => {
      const remove = (): void => rmSync(fileOf(fault), { force: true })
      // Of one that is not in force the testbed says nothing.
      if (!applied.delete(fault)) {
        remove()
        return
      }
      await told(`the end of the fault ${fault.name}`, remove, ({ msg, file }) =>
        msg === FAULT_REMOVED && file === fileOf(fault) ? 'taken' : null,
      )
    },
    failed,
    close: async () => {
      await child.stop()
    },
  }
}

/** Blank lines make a profile begin anew that is the same as the one before. */
function profileText(shape: LoadShape, { spawnRate, waitSeconds }: Experiment, times: number): string {
  return `${JSON.stringify(loadProfileJson({ shape, spawnRate, waitSeconds }))}${'\n'.repeat(times)}`
}
