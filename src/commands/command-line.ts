import yargs from 'yargs'

import { UsageError } from '../core/errors.js'
import type { Command, Job } from './command.js'
import type { Given } from './flags.js'

export type Parsed = { readonly kind: 'message'; readonly text: string } | { readonly kind: 'job'; readonly job: Job }

export interface CommandLine {
  readonly args: readonly string[]
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly commands: readonly Command[]
  readonly version: string
}

/**
 * Turns argv and the environment into a job that can run, or into a text to print (--help, --version).
 *
 * @throws {UsageError} one line that names the flag, what was expected and what came
 */
export function parseCommandLine({ args, environment, commands, version }: CommandLine): Parsed {
  let job: Job | undefined
  let message = ''
  const parser = yargs(args.map(dashed))
    .scriptName('meshfever')
    .locale('en')
    .version(version)
    .help()
    .strict()
    .wrap(120)
    .demandCommand(1, 'a command is required')
    .recommendCommands()
    .exitProcess(false)
    .parserConfiguration({
      'dot-notation': false,
      'boolean-negation': false,
      'camel-case-expansion': false,
      'parse-numbers': false,
      'parse-positional-numbers': false,
    })
    .fail((text: string, error: Error | undefined) => {
      // Some of yargs's own findings come as an error, a YError: they are the user's mistakes like all the others.
      if (error !== undefined && error.name !== 'YError') throw error
      throw new UsageError(`${text.trim().replaceAll('\n', '; ')} (see meshfever --help)`)
    })
  for (const command of commands) {
    parser.command(
      [command.name, ...command.positionals.map((name) => `<${name}>`)].join(' '),
      command.describe,
      (sub) => {
        for (const [name, flag] of Object.entries(command.flags)) {
          sub.option(name, {
            describe: flag.describe + (flag.many === true ? ' (repeatable)' : ''),
            requiresArg: flag.toggle !== true,
            ...(flag.toggle === true ? { type: 'boolean' as const } : { type: 'string' as const }),
            ...(flag.defaultText === undefined ? {} : { defaultDescription: flag.defaultText }),
          })
        }
        for (const name of command.positionals) sub.positional(name, { type: 'string' })
        return sub.usage(
          `meshfever ${[command.name, ...command.positionals.map((name) => `<${name}>`)].join(' ')}\n\n${command.describe}`,
        )
      },
      (argv: Readonly<Record<string, unknown>>) => {
        job = command.prepare(
          given(command, argv, environment),
          command.positionals.map((name) => String(argv[name])),
        )
      },
    )
  }
  void parser.parse(args.map(dashed), (error: Error | null | undefined, _argv: unknown, output: string) => {
    if (error) throw error
    message = output
  })
  return job === undefined ? { kind: 'message', text: `${message}\n` } : { kind: 'job', job }
}

/** `--training_data_file` is `--training-data-file`: people have Deployments that say so. */
function dashed(arg: string): string {
  const [, name, rest] = /^--([a-zA-Z0-9_-]+)(=.*)?$/s.exec(arg) ?? []
  return name === undefined ? arg : `--${name.replaceAll('_', '-')}${rest ?? ''}`
}

/** The texts given for each flag: from the command line, else from MESHFEVER_FLAG_NAME. Other variables are none of ours. */
function given(
  command: Command,
  argv: Readonly<Record<string, unknown>>,
  environment: CommandLine['environment'],
): Given {
  const texts = new Map<string, { readonly texts: readonly string[]; readonly name: string }>()
  for (const [name, flag] of Object.entries(command.flags)) {
    const typed = argv[name]
    const variable = `MESHFEVER_${name.replaceAll('-', '_').toUpperCase()}`
    const inherited = environment[variable]
    if (typed !== undefined) {
      texts.set(name, { texts: (Array.isArray(typed) ? typed : [typed]).map(String), name: `--${name}` })
    } else if (inherited !== undefined) {
      texts.set(name, { texts: flag.many === true ? inherited.split(',') : [inherited], name: variable })
    }
  }
  return texts
}
