def sync_dag_to_db(dag):
    return dag
