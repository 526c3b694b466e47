import { StartError } from '../core/errors.js'
import { findProgram } from '../testbed/installed-program.js'
import type { KubernetesSettings } from './experiment-file.js'
import { type Cluster, get } from './kubernetes-cluster.js'
import { KubectlError, runToEnd, shortened } from './kubernetes-kubectl.js'
import { type KubernetesObject, inputOf, objectName, objectsIn, runOf } from './kubernetes-objects.js'

/** Whether the experiment brings its application along. */
export function installsApplication({ manifests, chart }: Pick<KubernetesSettings, 'manifests' | 'chart'>): boolean {
  return manifests.length > 0 || chart !== null
}

/**
 * The application's objects, as the manifests or the chart have them. kubectl reads them: files, folders and URLs, through
 * whatever proxy the user's kubectl goes through. A chart is rendered by Helm and then treated alike, so that there is one
 * way to apply and to remove things.
 *
 * @throws {StartError} when something cannot be read
 */
export async function applicationObjects(cluster: Cluster): Promise<readonly KubernetesObject[]> {
  const { settings } = cluster
  const { manifests, chart } = settings
  const found: KubernetesObject[] = []
  for (const manifest of manifests) found.push(...(await readObjects(cluster, manifest)))
  if (chart !== null) found.push(...(await readObjects(cluster, '-', await renderChart(cluster, chart))))
  if (found.length === 0) throw new StartError(`there is no object in ${[...manifests, chart?.name].join(', ')}`)
  return found
}

/** `kubectl label --local` asks no cluster; that it adds a label is of no use here. */
async function readObjects(
  { kubectl, settings, limits, runtime }: Cluster,
  source: string,
  input?: string,
): Promise<readonly KubernetesObject[]> {
  const args = [
    'label',
    '--local',
    '--overwrite',
    '--output=json',
    '--namespace',
    settings.namespace,
    '--filename',
    source,
  ]
  try {
    const text = await kubectl.run([...args, 'app.kubernetes.io/managed-by=meshfever-experiment'], {
      limitMs: limits.manifestsMs,
      signal: runtime.signal,
      ...(input === undefined ? {} : { input }),
    })
    return objectsIn(text)
  } catch (error) {
    if (!(error instanceof KubectlError)) throw error
    const what = source === '-' ? `the chart ${settings.chart?.name ?? ''}` : source
    throw new StartError(`cannot read the manifests of ${what}: ${error.message}`, { cause: error })
  }
}

async function renderChart(
  { settings, limits, runtime }: Cluster,
  { name, repository, version }: NonNullable<KubernetesSettings['chart']>,
): Promise<string> {
  const helm = findProgram('helm', runtime.program)
  if (helm === undefined) {
    throw new StartError(
      `the application is the chart ${name}, and Helm, which renders charts, was not found: put helm on the PATH ` +
        `(https://helm.sh/docs/intro/install/), or name manifests instead`,
    )
  }
  const args = [
    'template',
    'meshfever',
    name,
    '--namespace',
    settings.namespace,
    ...(repository === null ? [] : ['--repo', repository]),
    ...(version === null ? [] : ['--version', version]),
  ]
  const ended = await runToEnd(helm, args, {
    env: runtime.program.environment,
    limitMs: limits.manifestsMs,
    signal: runtime.signal,
  })
  if (ended.kind === 'ended' && ended.code === 0) return ended.stdout
  const reason =
    ended.kind === 'failed'
      ? ended.reason
      : ended.cut === null
        ? shortened(ended.stderr)
        : ended.cut === 'signal'
          ? 'interrupted'
          : `no end within ${limits.manifestsMs / 1000} s`
  throw new StartError(`helm ${args.join(' ')}: ${reason}`)
}

/**
 * Nothing of what is to be created may be there: it would be somebody's, and would be overwritten and then removed.
 *
 * @throws {StartError} naming what is there
 */
export async function checkNoneThere(cluster: Cluster, objects: readonly KubernetesObject[]): Promise<void> {
  const { namespace } = cluster.settings
  const there = await get(cluster, ['--namespace', namespace, '--filename=-'], { input: inputOf(objects) })
  const [first] = there
  if (first === undefined) return
  const whose = runOf(first) === null ? '' : `, by the experiment ${runOf(first) ?? ''}`
  throw new StartError(
    `${there.length} of the application's objects are in the namespace ${namespace} already (for example ${objectName(first)}${whose}), ` +
      `and are not overwritten: use another namespace, or the application that is there (application: installed)`,
  )
}
