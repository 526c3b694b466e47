import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'

import { parseAllDocuments } from 'yaml'

/** An object as `kubectl apply` would send it. */
export interface KubernetesObject {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: {
    readonly name: string
    readonly namespace?: string
    readonly labels?: Readonly<Record<string, string>>
  }
  readonly [field: string]: unknown
}

/** The program that renders, with the arguments that go before the folder; or why there is none on this machine. */
export type Kustomize =
  | { readonly kind: 'found'; readonly command: string; readonly args: readonly string[] }
  | { readonly kind: 'missing'; readonly reason: string }

const CANDIDATES = [
  { command: 'kubectl', args: ['kustomize'] },
  { command: 'kustomize', args: ['build'] },
] as const

function onPath(): Kustomize | undefined {
  const found = CANDIDATES.find(({ command, args }) => spawnSync(command, [...args, '--help']).status === 0)
  return found && { kind: 'found', ...found }
}

/** Looks for kubectl and kustomize; as root on Debian or Ubuntu it installs the distribution's kubectl when there is neither. */
export function findKustomize(): Kustomize {
  const found = onPath()
  if (found !== undefined) return found
  const missing = 'neither kubectl nor kustomize is on the PATH'
  if (!existsSync('/etc/debian_version') || process.getuid?.() !== 0) return { kind: 'missing', reason: missing }
  for (const args of [['update'], ['install', '-y', '--no-install-recommends', 'kubernetes-client']]) {
    const { status, stderr, error } = spawnSync('apt-get', args, {
      encoding: 'utf8',
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    })
    if (status !== 0) {
      const cause = (error?.message ?? stderr).trim()
      return { kind: 'missing', reason: `${missing}, and apt-get ${args.join(' ')} failed: ${cause}` }
    }
  }
  return onPath() ?? { kind: 'missing', reason: `${missing}, even after installing kubernetes-client` }
}

/**
 * What `kubectl apply -k folder` would send.
 *
 * @throws {Error} with kustomize's own words when it refuses the folder
 */
export function renderKustomization(
  kustomize: Kustomize & { kind: 'found' },
  folder: string,
): readonly KubernetesObject[] {
  const { status, stdout, stderr } = spawnSync(kustomize.command, [...kustomize.args, folder], {
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
  })
  if (status !== 0) throw new Error(`${kustomize.command} refused ${folder}: ${stderr}`)
  return parseManifest(stdout)
}

/** Every object of a manifest, in the order of the file. @throws when it is not YAML, or has a key twice */
export function parseManifest(text: string): readonly KubernetesObject[] {
  return parseAllDocuments(text).map((document) => {
    if (document.errors.length > 0) throw document.errors[0]!
    return document.toJS() as KubernetesObject
  })
}
