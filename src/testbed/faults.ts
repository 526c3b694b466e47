import type { Logger } from 'pino'

import { UsageError } from '../core/errors.js'
import { inWords, parseVirtualServices, type VirtualService } from './virtual-service.js'

/** What the log says of a fault. */
export const FAULT_APPLIED = 'fault applied'
export const FAULT_REMOVED = 'fault removed'
export const FAULT_REFUSED = 'fault refused'

/** The VirtualServices in force, changed as `kubectl apply -f` and `kubectl delete -f` would. */
export interface Faults {
  readonly current: () => readonly VirtualService[]
  /**
   * Puts a manifest's objects in force, and takes out those that an earlier version of it had and this one has not.
   *
   * @throws {UsageError} when the manifest is refused; what was in force stays so
   */
  readonly apply: (text: string, name: string) => void
  /** Takes out every object that the manifest names, whoever put it there. */
  readonly remove: (name: string) => void
}

export interface FaultsOptions {
  readonly logger: Logger
  readonly namespace: string
  /** Fully qualified. */
  readonly knownHosts: readonly string[]
}

interface Applied {
  readonly virtualService: VirtualService
  readonly file: string
}

export function createFaults({ logger, namespace, knownHosts }: FaultsOptions): Faults {
  const objects = new Map<string, Applied>()
  const keysOf = new Map<string, readonly string[]>()
  let current: readonly VirtualService[] = []

  const take = (key: string, file: string): void => {
    const found = objects.get(key)
    if (found === undefined) return
    objects.delete(key)
    logger.info({ file, virtualService: key, fault: inWords(found.virtualService) }, FAULT_REMOVED)
  }
  const refresh = (): void => {
    current = [...objects.values()].map(({ virtualService }) => virtualService)
  }

  return {
    current: () => current,
    apply: (text, file) => {
      const { virtualServices, ignored } = parseVirtualServices(text, { file, namespace })
      const keys = virtualServices.map(({ namespace: own, name }) => `${own}/${name}`)
      for (const key of keysOf.get(file) ?? []) if (!keys.includes(key)) take(key, file)
      keysOf.set(file, keys)
      for (const virtualService of virtualServices) {
        const key = `${virtualService.namespace}/${virtualService.name}`
        const before = objects.get(key)
        if (before !== undefined && before.file !== file) {
          logger.warn(
            { virtualService: key, file, earlierFile: before.file },
            'VirtualService replaced by that of another file',
          )
        }
        warnOfHosts(virtualService, key, file)
        objects.set(key, { virtualService, file })
        logger.info({ file, virtualService: key, fault: inWords(virtualService) }, FAULT_APPLIED)
      }
      if (ignored.length > 0)
        logger.warn({ file, ignored }, 'fields of a VirtualService that the testbed does not act on')
      refresh()
    },
    remove: (file) => {
      for (const key of keysOf.get(file) ?? []) take(key, file)
      keysOf.delete(file)
      refresh()
    },
  }

  function warnOfHosts({ hosts }: VirtualService, key: string, file: string): void {
    const unknown = hosts.filter((host) => !host.startsWith('*') && !knownHosts.includes(host))
    if (unknown.length > 0) logger.warn({ virtualService: key, file, hosts: unknown }, 'no such host in this mesh')
    for (const [other, applied] of objects) {
      if (other !== key && applied.virtualService.hosts.some((host) => hosts.includes(host))) {
        logger.warn(
          { virtualService: key, file, earlier: other },
          'a host has two VirtualServices; a sidecar follows the earlier one',
        )
      }
    }
  }
}

/** Applies a manifest from outside: one that is refused is a warning and changes nothing. */
export function applyOrWarn(
  faults: Faults,
  { text, file, logger }: { readonly text: string; readonly file: string; readonly logger: Logger },
): void {
  try {
    faults.apply(text, file)
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    logger.warn({ file, reason: error.message }, FAULT_REFUSED)
  }
}
