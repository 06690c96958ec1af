from xenomask.cli import main

main()
