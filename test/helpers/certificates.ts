import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import type { Runtime } from '../../src/io/runtime.js'
import { findOrInstall } from '../../src/testbed/installed-program.js'

/**
 * OpenSSL's program: $OPENSSL, or on the PATH; on Debian and Ubuntu as root the distribution's package is installed.
 *
 * @throws {StartError} in one line that says how to get it
 */
export function findOpenssl(runtime: Pick<Runtime, 'program' | 'logger'>): Promise<string> {
  return findOrInstall(runtime, {
    title: 'OpenSSL',
    names: ['openssl'],
    variable: 'OPENSSL',
    debianPackage: 'openssl',
    howTo: 'OpenSSL is needed and was not found: apt-get install openssl (Debian, Ubuntu), or its program on the PATH',
  })
}

/** A certificate and its key, in PEM, with the files that they are in. */
export interface Certificate {
  readonly cert: string
  readonly key: string
  readonly certFile: string
  readonly keyFile: string
}

export interface Authority extends Certificate {
  /**
   * @param options.names - as OpenSSL writes them: `IP:127.0.0.1,DNS:localhost`
   * @param options.days - how long it is valid; negative: until so long ago
   */
  readonly issue: (name: string, options?: { readonly names?: string; readonly days?: number }) => Certificate
}

const THIS_HOST = 'IP:127.0.0.1,DNS:localhost'
const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']

/** An authority of the test's own; its files and those it issues are in `folder`. */
export function createAuthority(folder: string, name: string): Authority {
  const own = filesOf(folder, name)
  selfSigned(own, name, [])
  return {
    ...readBoth(own),
    issue: (issued, { names = THIS_HOST, days = 2 } = {}) => {
      const files = filesOf(folder, issued)
      const request = join(folder, `${issued}.csr`)
      const extensions = join(folder, `${issued}.ext`)
      writeFileSync(extensions, `subjectAltName=${names}\n`)
      openssl(['req', ...NEW_KEY, '-keyout', files.keyFile, '-out', request, '-subj', `/CN=${issued}`])
      const by = ['-CA', own.certFile, '-CAkey', own.keyFile, '-CAcreateserial']
      const what = ['-days', String(days), '-extfile', extensions, '-out', files.certFile]
      openssl(['x509', '-req', '-in', request, ...by, ...what])
      return readBoth(files)
    },
  }
}

/** A certificate for this host that vouches for itself. */
export function selfSignedCertificate(folder: string, name: string): Certificate {
  const files = filesOf(folder, name)
  selfSigned(files, name, ['-addext', `subjectAltName=${THIS_HOST}`])
  return readBoth(files)
}

type Files = Pick<Certificate, 'certFile' | 'keyFile'>

function filesOf(folder: string, name: string): Files {
  return { certFile: join(folder, `${name}.pem`), keyFile: join(folder, `${name}.key`) }
}

function selfSigned({ certFile, keyFile }: Files, name: string, more: readonly string[]): void {
  openssl([
    'req',
    '-x509',
    ...NEW_KEY,
    '-keyout',
    keyFile,
    '-out',
    certFile,
    '-subj',
    `/CN=${name}`,
    '-days',
    '2',
    ...more,
  ])
}

function readBoth(files: Files): Certificate {
  return { ...files, cert: readFileSync(files.certFile, 'utf8'), key: readFileSync(files.keyFile, 'utf8') }
}

function openssl(args: readonly string[]): void {
  const { status, stderr, error } = spawnSync(process.env['OPENSSL'] ?? 'openssl', args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`openssl ${args.join(' ')}: ${error?.message ?? stderr}`)
}
