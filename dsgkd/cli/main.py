from dsgkd.cli.flags import run_command
def main(): run_command(lambda: None)
